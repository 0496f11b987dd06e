// The gradients of attention for small heads in two kernels, without score matrices in memory; attention-backward.ts has
// the products and the other method.
//
// The first kernel owns queries and computes dq, the second owns keys and computes dk and dv; both compute the scores
// again. Each term of dq = scale Σ_j P (dP - m) k contains the mean m = Σ_j P dP, which is known only after the last key.
// So the kernel sums
//   dq = scale (Σ_j P dP k - m Σ_j P k),
// whose parts are rescaled like those of an online softmax: one sweep over the keys is enough. It leaves the softmax's
// largest score, 1 / denominator and m of each query to the second kernel.
//
// Versions on lavapipe (2 cores, Mesa 25.0.7), 4 heads of 16 with 49 tokens, n = 64; the forward pass takes 1.5 ms:
// - Five matrix products around a kernel over the scores (attention-backward.ts): 11.8 ms, of which 5.0 ms copy operands
//   to padded or transposed rows.
// - Two kernels, 4 owned tokens per lane, 8 others unrolled: 6.9 ms; the code exceeds the instruction cache.
// - 4 owned tokens, 4 others: 5.6 ms.
// - 7 owned tokens, which leave few of 56 lanes idle, 4 others (as here): 4.7 ms, or 3.1 forward passes for 3.7 times
//   its products. 2 others: 4.9 ms. Touching cache lines in advance, as the forward pass does, changes nothing.
// With heads of 24, 8 heads, 256 tokens, n = 8: 29.5 ms with 2 others, 40 with 4 (forward pass 12.4). With heads of 32 the
// matrix products are as fast and compile faster (45.5 and 44.5 ms).

import type { Capabilities } from '../device/device.ts';
import {
  type Binding,
  ceilDiv,
  defineKernel,
  type Kernel,
  linearGrid,
  linearMain,
  read,
  write,
} from '../device/kernel.ts';
import type { Routine } from '../device/routine.ts';
import { unroll } from '../gemm/gemm-spec.ts';
import type { GradientOptions } from './attention-options.ts';
import { placeUniforms, placeWgsl } from './attention-place.ts';

/** Heads larger than this are faster as matrix products. */
export const LARGEST_FUSED_GRADIENT_HEAD = 24;

/** Returns the tokens that a lane owns, at most 7: with heads of 16 it holds 4 x 112 values throughout. */
const slotsFor = (tokens: number, headDim: number, lanes: number): number => {
  const most = lanes * Math.max(1, Math.min(7, Math.floor(128 / headDim)));
  return ceilDiv(tokens, lanes * ceilDiv(tokens, most));
};

/** Returns the tokens of the other side that are unrolled, so that the code stays in a 32 KB instruction cache. */
const unrolledTokens = (headDim: number, lanes: number): number => Math.min(lanes, headDim <= 16 ? 4 : 2);

/** Returns start + Σ_i of the products of two factors, as a chain of fma. */
const chain = (count: number, factors: (i: number) => string, start: string): string =>
  Array.from({ length: count }, (_, i) => factors(i)).reduce(
    (sum, product) => `fma(${product}, ${sum})`,
    start,
  );
/** Returns the sum of values. */
const all = (count: number, value: (i: number) => string): string =>
  Array.from({ length: count }, (_, i) => value(i)).join(' + ');

/** Returns a value of the lane `turn` + i, which all lanes get; `turn` is 0 if all lanes are unrolled. */
const laneReader =
  (lanes: number, others: number) =>
  (value: string, i: number): string =>
    others === lanes ? `subgroupBroadcast(${value}, ${i}u)` : `subgroupShuffle(${value}, turn + ${i}u)`;

/**
 * A workgroup is one subgroup, and a lane owns every lanes-th query of a block. For dq it holds Σ P k in `a` and Σ P dP k
 * in `b`. Lanes after the last query repeat it.
 */
function queriesKernel({ subgroupSize: lanes }: Capabilities, options: GradientOptions): Kernel {
  const { headDim, queries, causal = false, of } = options;
  const slots = slotsFor(queries, headDim, lanes);
  const owned = lanes * slots;
  const last = headDim - 1;
  const others = unrolledTokens(headDim, lanes);
  const fromLane = laneReader(lanes, others);
  const gives = of !== 'kv';
  const { uniforms, groups } = placeUniforms(options, queries, owned);
  return defineKernel({
    name: `attentionGradient.queries.${gives ? 'q.' : ''}${causal ? 'causal.' : ''}${headDim}x${slots}`,
    enable: ['subgroups'],
    bindings: queriesBindings(gives),
    uniforms,
    body: /* wgsl */ `
const LANES = ${lanes}u;
const NEVER = -3e38;
${placeWgsl(owned)}
${linearMain(lanes)}
  let at = placeOf(linearGroup(group, groups));
  if (at.outside) { return; }
  ${unroll(
    slots,
    (j) => `let token${j} = min(at.first + local + ${j}u * LANES, u.queries - 1u);
  let query${j} = at.q + token${j};
  var top${j} = NEVER;
  var sum${j} = 0.0;
  var along${j} = 0.0;`,
  )}
  ${unroll(headDim, (d) => unroll(slots, (j) => `var q${d}_${j} = 0.0; var dy${d}_${j} = 0.0; ${gives ? `var a${d}_${j} = 0.0; var b${d}_${j} = 0.0;` : ''}`))}
  for (var d = 0u; d < u.headDim; d++) {
    ${unroll(last, (d) => unroll(slots, (j) => `q${d}_${j} = q${d + 1}_${j}; dy${d}_${j} = dy${d + 1}_${j};`))}
    ${unroll(slots, (j) => `q${last}_${j} = q[query${j} + d * u.qPitch] * u.scale; dy${last}_${j} = dy[query${j} + d * u.qPitch];`)}
  }
  let keys = ${causal ? `min(u.keys, at.first + ${owned}u)` : 'u.keys'};
  for (var key = 0u; key < keys; key += LANES) {
    let first = at.k + min(key + local, u.keys - 1u);
    ${unroll(headDim, (d) => `let k${d} = k[first + ${d}u * u.kPitch]; let v${d} = v[first + ${d}u * u.kPitch];`)}
    for (var turn = 0u; turn < LANES; turn += ${others}u) {
    ${unroll(
      others,
      (i) => `${unroll(headDim, (d) => `let k${d}_${i} = ${fromLane(`k${d}`, i)};`)}
    ${unroll(slots, (j) => `let s${i}_${j} = select(NEVER, ${chain(headDim, (d) => `k${d}_${i}, q${d}_${j}`, '0.0')}, key + turn + ${i}u ${causal ? `<= token${j}` : '< u.keys'});`)}
    ${unroll(headDim, (d) => `let v${d}_${i} = ${fromLane(`v${d}`, i)};`)}
    ${unroll(slots, (j) => `let g${i}_${j} = ${chain(headDim, (d) => `v${d}_${i}, dy${d}_${j}`, '0.0')};`)}`,
    )}
    ${unroll(
      slots,
      (
        j,
      ) => `let above${j} = ${Array.from({ length: others }, (_, i) => `s${i}_${j}`).reduce((a, b) => `max(${a}, ${b})`, `top${j}`)};
    let shrink${j} = exp(top${j} - above${j});
    top${j} = above${j};
    ${unroll(others, (i) => `let p${i}_${j} = exp(s${i}_${j} - above${j}); let e${i}_${j} = p${i}_${j} * g${i}_${j};`)}
    sum${j} = sum${j} * shrink${j} + (${all(others, (i) => `p${i}_${j}`)});
    along${j} = along${j} * shrink${j} + (${all(others, (i) => `e${i}_${j}`)});`,
    )}
    ${
      gives
        ? unroll(headDim, (d) =>
            unroll(
              slots,
              (
                j,
              ) => `a${d}_${j} = ${chain(others, (i) => `k${d}_${i}, p${i}_${j}`, `a${d}_${j} * shrink${j}`)};
    b${d}_${j} = ${chain(others, (i) => `k${d}_${i}, e${i}_${j}`, `b${d}_${j} * shrink${j}`)};`,
            ),
          )
        : ''
    }
    }
  }
  ${unroll(
    slots,
    (j) => `let share${j} = 1 / sum${j};
  let mean${j} = along${j} * share${j};
  statistics[at.statistics + token${j}] = top${j};
  statistics[at.statistics + token${j} + u.statistics] = share${j};
  statistics[at.statistics + token${j} + 2u * u.statistics] = mean${j};`,
  )}
  ${
    gives
      ? `for (var d = 0u; d < u.headDim; d++) {
    ${unroll(slots, (j) => `y[query${j} + d * u.qPitch] = u.scale * share${j} * (b0_${j} - mean${j} * a0_${j});`)}
    ${unroll(last, (d) => unroll(slots, (j) => `a${d}_${j} = a${d + 1}_${j}; b${d}_${j} = b${d + 1}_${j};`))}
  }`
      : ''
  }
}
`,
    grid: linearGrid(groups),
  });
}

/** Like `queriesKernel`, but a lane owns keys, and holds dk in `a` and dv in `b`. Queries after the last have no share. */
function keysKernel({ subgroupSize: lanes }: Capabilities, options: GradientOptions): Kernel {
  const { headDim, keys, causal = false, of } = options;
  const slots = slotsFor(keys, headDim, lanes);
  const owned = lanes * slots;
  const last = headDim - 1;
  const others = unrolledTokens(headDim, lanes);
  const fromLane = laneReader(lanes, others);
  const { uniforms, groups } = placeUniforms(options, keys, owned);
  const before = of === 'qkv' ? 1 : 0; // gradients before dk in y
  return defineKernel({
    name: `attentionGradient.keys.${before}.${causal ? 'causal.' : ''}${headDim}x${slots}`,
    enable: ['subgroups'],
    bindings: KEYS_BINDINGS,
    uniforms,
    body: /* wgsl */ `
const LANES = ${lanes}u;
${placeWgsl(owned)}
${linearMain(lanes)}
  let at = placeOf(linearGroup(group, groups));
  if (at.outside) { return; }
  ${unroll(
    slots,
    (j) => `let token${j} = min(at.first + local + ${j}u * LANES, u.keys - 1u);
  let key${j} = at.k + token${j};`,
  )}
  ${unroll(headDim, (d) => unroll(slots, (j) => `var k${d}_${j} = 0.0; var v${d}_${j} = 0.0; var a${d}_${j} = 0.0; var b${d}_${j} = 0.0;`))}
  for (var d = 0u; d < u.headDim; d++) {
    ${unroll(last, (d) => unroll(slots, (j) => `k${d}_${j} = k${d + 1}_${j}; v${d}_${j} = v${d + 1}_${j};`))}
    ${unroll(slots, (j) => `k${last}_${j} = k[key${j} + d * u.kPitch] * u.scale; v${last}_${j} = v[key${j} + d * u.kPitch];`)}
  }
  for (var query = ${causal ? 'at.first / LANES * LANES' : '0u'}; query < u.queries; query += LANES) {
    let token = min(query + local, u.queries - 1u);
    let first = at.q + token;
    ${unroll(headDim, (d) => `let q${d} = q[first + ${d}u * u.qPitch]; let dy${d} = dy[first + ${d}u * u.qPitch];`)}
    let top = statistics[at.statistics + token];
    let share = select(0.0, statistics[at.statistics + token + u.statistics], query + local < u.queries);
    let mean = statistics[at.statistics + token + 2u * u.statistics];
    for (var turn = 0u; turn < LANES; turn += ${others}u) {
    ${unroll(
      others,
      (
        i,
      ) => `let top_${i} = ${fromLane('top', i)}; let share_${i} = ${fromLane('share', i)}; let mean_${i} = ${fromLane('mean', i)};
    ${unroll(headDim, (d) => `let q${d}_${i} = ${fromLane(`q${d}`, i)}; let dy${d}_${i} = ${fromLane(`dy${d}`, i)};`)}
    ${unroll(
      slots,
      (j) => `let s${i}_${j} = ${chain(headDim, (d) => `q${d}_${i}, k${d}_${j}`, '0.0')};
    let p${i}_${j} = ${causal ? `select(0.0, exp(s${i}_${j} - top_${i}) * share_${i}, token${j} <= query + turn + ${i}u)` : `exp(s${i}_${j} - top_${i}) * share_${i}`};
    let e${i}_${j} = p${i}_${j} * (${chain(headDim, (d) => `dy${d}_${i}, v${d}_${j}`, '0.0')} - mean_${i});`,
    )}`,
    )}
    ${unroll(headDim, (d) =>
      unroll(
        slots,
        (j) => `a${d}_${j} = ${chain(others, (i) => `q${d}_${i}, e${i}_${j}`, `a${d}_${j}`)};
    b${d}_${j} = ${chain(others, (i) => `dy${d}_${i}, p${i}_${j}`, `b${d}_${j}`)};`,
      ),
    )}
    }
  }
  for (var d = 0u; d < u.headDim; d++) {
    ${unroll(slots, (j) => `y[key${j} + (${before}u * u.channels + d) * u.kPitch] = u.scale * a0_${j}; y[key${j} + (${before + 1}u * u.channels + d) * u.kPitch] = b0_${j};`)}
    ${unroll(last, (d) => unroll(slots, (j) => `a${d}_${j} = a${d + 1}_${j}; b${d}_${j} = b${d + 1}_${j};`))}
  }
}
`,
    grid: linearGrid(groups),
  });
}

const INPUTS = ['q', 'k', 'v', 'dy'].map((name) => read(name));

/** Returns the bindings of a kernel that owns queries; it has y if it `gives` dq. */
export const queriesBindings = (gives: boolean): Binding[] => [
  ...INPUTS,
  write('statistics'),
  ...(gives ? [write('y')] : []),
];

/** The bindings of a kernel that owns keys. */
export const KEYS_BINDINGS: readonly Binding[] = [...INPUTS, read('statistics'), write('y')];

/** Returns the routine of `attentionGradient` for small heads. */
export const fusedGradient = (capabilities: Capabilities, options: GradientOptions): Routine =>
  fusedGradientSteps(options, queriesKernel(capabilities, options), () => keysKernel(capabilities, options));

/** Returns the routine of a kernel that owns queries and, unless only dq is requested, one that owns keys. */
export function fusedGradientSteps(
  { heads, n, queries, of }: GradientOptions,
  ofQueries: Kernel,
  ofKeys: () => Kernel,
): Routine {
  const kernels = of === 'q' ? [ofQueries] : [ofQueries, ofKeys()];
  return {
    steps: kernels.map((kernel) => ({ kernel, operands: kernel.bindings.map(({ name }) => name) })),
    scratch: { statistics: 4 * 3 * heads * n * queries },
    packing: {},
  };
}
