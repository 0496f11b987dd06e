// Attention in one kernel for small heads: scores never leave the registers. attention.ts lists the versions
// of attention.
//
// Steps of the subgroup kernel on lavapipe (2 cores): 26 GFLOP/s for 49 tokens in heads of 16, where two
// GEMMs around a softmax reach 9; loading q and storing y in loops then cut the compile time to a quarter.

import type { Capabilities } from '../device/device.ts';
import { ceilDiv, f32, LINEAR_GROUP, linearGrid, read, type Uniform, u32, write } from '../device/kernel.ts';
import { type Routine, single } from '../device/routine.ts';
import { pitch } from '../device/tensor.ts';
import { unroll } from '../gemm/gemm-spec.ts';
import type { AttentionOptions } from './attention-options.ts';

/** Heads larger than this do not fit the registers of a fused kernel. */
export const LARGEST_FUSED_HEAD = 32;

/** Returns the most queries per lane. With heads of 16 a lane holds 2 x 112 values of q and y throughout. */
const slotsFor = (headDim: number): number => Math.max(1, Math.min(7, Math.floor(128 / headDim)));

const uniformsOf = (
  { heads, headDim, n, queries, keys, scale }: AttentionOptions,
  blockQueries: number,
): { uniforms: Uniform[]; groups: number } => {
  const blocks = ceilDiv(queries, blockQueries);
  return {
    groups: heads * n * blocks,
    uniforms: [
      u32('groups', heads * n * blocks),
      u32('blocks', blocks),
      u32('n', n),
      u32('queries', queries),
      u32('keys', keys),
      u32('headDim', headDim),
      u32('qPitch', pitch([1, n, 1, queries])),
      u32('kPitch', pitch([1, n, 1, keys])),
      f32('scale', scale),
    ],
  };
};

const BINDINGS = [read('q'), read('k'), read('v'), write('y')];

/** Returns WGSL of `placeOf`: a workgroup's first query, and where the rows of its head and sample start. */
const placeWgsl = (headDim: number, blockQueries: number) => /* wgsl */ `${LINEAR_GROUP}
struct Place { first: u32, q: u32, k: u32, outside: bool }
fn placeOf(group: vec3u, groups: vec3u) -> Place {
  let i = linearGroup(group, groups);
  let matrix = i / u.blocks;
  let h = matrix / u.n;
  let s = matrix - h * u.n;
  return Place(
    (i - matrix * u.blocks) * ${blockQueries}u,
    h * ${headDim}u * u.qPitch + s * u.queries,
    h * ${headDim}u * u.kPitch + s * u.keys,
    i >= u.groups,
  );
}
`;

/**
 * A workgroup is one subgroup. A lane owns every lanes-th query of the block, at most 7, with their q and y in
 * registers. Keys are processed in blocks of one per lane: k and v are loaded once per subgroup, and each element is
 * broadcast to all queries. The softmax is computed online: a block's largest score rescales the sums so far. Nothing
 * is reduced across lanes, and no order depends on n. Lanes after the last query repeat it. Causal: the loop ends with
 * the key of the block's last query, and each query ignores later keys than its own. q is loaded and y stored in loops
 * that move the other rows up by one, because unrolled loads and stores take four times as long to compile as
 * everything else. Before that, one lane per cache line prefetches what the workgroup will read. 49 tokens in heads of
 * 16: 26 GFLOP/s, where two GEMMs around a softmax reach 9 (bench/kernels.ts, `attention`).
 */
export function fusedSubgroup({ subgroupSize: lanes }: Capabilities, options: AttentionOptions): Routine {
  const { headDim, queries, causal = false } = options;
  const most = lanes * slotsFor(headDim);
  const slots = ceilDiv(queries, lanes * ceilDiv(queries, most));
  const blockQueries = lanes * slots;
  const last = headDim - 1;
  const { uniforms, groups } = uniformsOf(options, blockQueries);
  /** Returns start + Σ_i factor(i) as a chain of fma. */
  const chain = (count: number, factor: (i: number) => string, start: string) =>
    Array.from({ length: count }, (_, i) => factor(i)).reduce(
      (sum, product) => `fma(${product}, ${sum})`,
      start,
    );
  const body = /* wgsl */ `
const LANES = ${lanes}u;
const NEVER = -3e38;
${placeWgsl(headDim, blockQueries)}
@compute @workgroup_size(${lanes})
fn main(@builtin(local_invocation_id) local: vec3u, @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let at = placeOf(group, groups);
  if (at.outside) { return; }
  ${unroll(
    slots,
    (j) => `let token${j} = min(at.first + local.x + ${j}u * LANES, u.queries - 1u);
  let query${j} = at.q + token${j};
  var top${j} = NEVER;
  var sum${j} = 0.0;`,
  )}
  var touched = 0.0;
  for (var d = local.x / 4u; d < u.headDim; d += LANES / 4u) {
    let column = local.x % 4u * 16u;
    let inQ = at.q + min(at.first + column, u.queries - 1u) + d * u.qPitch;
    let inK = at.k + min(column, u.keys - 1u) + d * u.kPitch;
    touched = max(touched, max(q[inQ], max(k[inK], v[inK])));
  }
  ${unroll(headDim, (d) => unroll(slots, (j) => `var q${d}_${j} = 0.0; var y${d}_${j} = 0.0;`))}
  for (var d = 0u; d < u.headDim; d++) {
    ${unroll(last, (d) => unroll(slots, (j) => `q${d}_${j} = q${d + 1}_${j};`))}
    ${unroll(slots, (j) => `q${last}_${j} = q[query${j} + d * u.qPitch] * u.scale;`)}
  }
  let keys = ${causal ? `min(u.keys, at.first + ${blockQueries}u)` : 'u.keys'};
  for (var key = 0u; key < keys; key += LANES) {
    let first = at.k + min(key + local.x, u.keys - 1u);
    ${unroll(headDim, (d) => `let k${d} = k[first + ${d}u * u.kPitch]; let v${d} = v[first + ${d}u * u.kPitch];`)}
    ${unroll(
      lanes,
      (i) => `${causal ? '' : `let here${i} = key + ${i}u < u.keys;`}
    ${unroll(headDim, (d) => `let k${d}_${i} = subgroupBroadcast(k${d}, ${i}u);`)}
    ${unroll(slots, (j) => `let s${i}_${j} = select(NEVER, ${chain(headDim, (d) => `k${d}_${i}, q${d}_${j}`, '0.0')}, ${causal ? `key + ${i}u <= token${j}` : `here${i}`});`)}`,
    )}
    ${unroll(
      slots,
      (
        j,
      ) => `let above${j} = ${Array.from({ length: lanes }, (_, i) => `s${i}_${j}`).reduce((a, b) => `max(${a}, ${b})`, `top${j}`)};
    let shrink${j} = exp(top${j} - above${j});
    top${j} = above${j};
    ${unroll(lanes, (i) => `let p${i}_${j} = exp(s${i}_${j} - above${j});`)}
    sum${j} = sum${j} * shrink${j} + (${Array.from({ length: lanes }, (_, i) => `p${i}_${j}`).join(' + ')});`,
    )}
    ${unroll(
      headDim,
      (d) => `${unroll(lanes, (i) => `let v${d}_${i} = subgroupBroadcast(v${d}, ${i}u);`)}
    ${unroll(slots, (j) => `y${d}_${j} = ${chain(lanes, (i) => `v${d}_${i}, p${i}_${j}`, `y${d}_${j} * shrink${j}`)};`)}`,
    )}
  }
  if (touched == -1.0) { sum0 = touched; } // never true, as it starts at 0, but the compiler cannot know
  for (var d = 0u; d < u.headDim; d++) {
    ${unroll(slots, (j) => `y[query${j} + d * u.qPitch] = y0_${j} / sum${j};`)}
    ${unroll(last, (d) => unroll(slots, (j) => `y${d}_${j} = y${d + 1}_${j};`))}
  }
}
`;
  return single({
    name: `attention.subgroup.${causal ? 'causal.' : ''}${headDim}x${slots}`,
    enable: ['subgroups'],
    bindings: BINDINGS,
    uniforms,
    body,
    grid: linearGrid(groups),
  });
}

/** One invocation owns one query and loops over the keys that it sees, with an online softmax. */
export function fusedPlain(options: AttentionOptions): Routine {
  const { headDim, causal = false } = options;
  const blockQueries = 64;
  const { uniforms, groups } = uniformsOf(options, blockQueries);
  const body = /* wgsl */ `
${placeWgsl(headDim, blockQueries)}
@compute @workgroup_size(${blockQueries})
fn main(@builtin(local_invocation_id) local: vec3u, @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let at = placeOf(group, groups);
  let query = at.first + local.x;
  if (at.outside || query >= u.queries) { return; }
  ${unroll(headDim, (d) => `let q${d} = q[at.q + query + ${d}u * u.qPitch] * u.scale; var y${d} = 0.0;`)}
  var top = -3e38;
  var sum = 0.0;
  let end = at.k + ${causal ? 'query + 1u' : 'u.keys'};
  for (var key = at.k; key < end; key++) {
    var s = 0.0;
    ${unroll(headDim, (d) => `s = fma(k[key + ${d}u * u.kPitch], q${d}, s);`)}
    let above = max(top, s);
    let shrink = exp(top - above);
    let p = exp(s - above);
    top = above;
    sum = fma(sum, shrink, p);
    ${unroll(headDim, (d) => `y${d} = fma(v[key + ${d}u * u.kPitch], p, y${d} * shrink);`)}
  }
  ${unroll(headDim, (d) => `y[at.q + query + ${d}u * u.qPitch] = y${d} / sum;`)}
}
`;
  return single({
    name: `attention.plain.${causal ? 'causal.' : ''}${headDim}`,
    bindings: BINDINGS,
    uniforms,
    body,
    grid: linearGrid(groups),
  });
}
