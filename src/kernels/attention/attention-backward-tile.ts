// The gradients of attention in two kernels for GPUs, without score matrices in memory: attention-backward-fused.ts with
// the other tokens staged in workgroup memory instead of broadcast between lanes.
//
// It has not been measured on a GPU yet; its tests run on software adapters. Estimates, per query and key of a head of 40,
// from the WGSL: 320 multiply-adds for 40 reads of 16 bytes of workgroup memory, the same in all lanes. Five matrix products
// are 200 multiply-adds, but around their kernel over the scores they write and read 12 words of memory per score, and
// their inner dimension of 40 ends before a GEMM's loop pays for its start: 3.5 TFLOP/s on an H200 for 8 heads of 40 with
// 4,096 tokens, 7 % of its peak. The kernels here are faster if they reach 12 % of it.

import type { Capabilities } from '../device/device.ts';
import { defineKernel, type Kernel, linearGrid } from '../device/kernel.ts';
import type { Routine } from '../device/routine.ts';
import { unroll } from '../gemm/gemm-spec.ts';
import { fusedGradientSteps, KEYS_BINDINGS, queriesBindings } from './attention-backward-fused.ts';
import type { GradientOptions } from './attention-options.ts';
import { placeUniforms, placeWgsl } from './attention-place.ts';
import {
  dotStaged,
  LANES,
  loadsWgsl,
  stage,
  stagedMain,
  stagedMemory,
  stagedTokens,
  storeFours,
  vectorsOf,
} from './attention-staged.ts';

/** Larger heads leave too few registers: an invocation holds four of their vectors. */
export const LARGEST_TILE_GRADIENT_HEAD = 48;

/** Keys between two looks at the largest score. */
const TURN = 4;

/** An invocation owns a query. For dq it holds Σ P k in `a` and Σ P dP k in `b`. */
function queriesKernel(options: GradientOptions): Kernel {
  const { headDim, queries, causal = false, of } = options;
  const gives = of !== 'kv';
  const vectors = vectorsOf(headDim);
  const tokens = stagedTokens(headDim);
  const { uniforms, groups } = placeUniforms(options, queries, LANES);
  const four = (line: (i: number) => string, separator = '\n      ') =>
    Array.from({ length: TURN }, (_, i) => line(i)).join(separator);
  return defineKernel({
    name: `attentionGradient.tile.queries.${gives ? 'q.' : ''}${causal ? 'causal.' : ''}${headDim}`,
    bindings: queriesBindings(gives),
    uniforms,
    body: /* wgsl */ `
const NEVER = -3e38;
${placeWgsl(LANES)}${loadsWgsl(['q', 'k', 'v', 'dy'])}
${stagedMemory('keysStaged', headDim)}
${stagedMemory('valuesStaged', headDim)}
${stagedMain}
  let at = placeOf(linearGroup(group, groups));
  if (at.outside) { return; }
  let token = min(at.first + local, u.queries - 1u);
  ${unroll(vectors, (d) => `let q${d} = four_q(at.q + token, ${4 * d}u, u.qPitch) * u.scale; let dy${d} = four_dy(at.q + token, ${4 * d}u, u.qPitch);`)}
  ${gives ? unroll(vectors, (d) => `var a${d} = vec4f(); var b${d} = vec4f();`) : ''}
  var top = NEVER;
  var sum = 0.0;
  var along = 0.0;
  let keys = ${causal ? `min(u.keys, at.first + ${LANES}u)` : 'u.keys'};
  for (var key = 0u; key < keys; key += ${tokens}u) {
    ${stage(headDim, 'key', 'u.keys', [
      ['k', 'keysStaged', 'at.k', 'u.kPitch'],
      ['v', 'valuesStaged', 'at.k', 'u.kPitch'],
    ])}
    let end = min(${tokens}u, keys - key);
    for (var i = 0u; i < end; i += ${TURN}u) {
      ${four(
        (
          i,
        ) => `let s${i} = select(NEVER, ${dotStaged(headDim, 'keysStaged', `i + ${i}u`, (d) => `q${d}`)}, key + i + ${i}u ${causal ? '<= token' : '< u.keys'});
      let g${i} = ${dotStaged(headDim, 'valuesStaged', `i + ${i}u`, (d) => `dy${d}`)};`,
      )}
      let above = max(top, max(max(s0, s1), max(s2, s3)));
      let shrink = exp(top - above);
      top = above;
      ${four((i) => `let p${i} = exp(s${i} - above); let e${i} = p${i} * g${i};`)}
      sum = sum * shrink + (${four((i) => `p${i}`, ' + ')});
      along = along * shrink + (${four((i) => `e${i}`, ' + ')});
      ${
        gives
          ? unroll(
              vectors,
              (d) => `{ ${four((i) => `let k${i} = keysStaged[${d * tokens}u + i + ${i}u];`, ' ')}
      a${d} = fma(k3, vec4f(p3), fma(k2, vec4f(p2), fma(k1, vec4f(p1), fma(k0, vec4f(p0), a${d} * shrink))));
      b${d} = fma(k3, vec4f(e3), fma(k2, vec4f(e2), fma(k1, vec4f(e1), fma(k0, vec4f(e0), b${d} * shrink)))); }`,
            )
          : ''
      }
    }
  }
  let share = 1 / sum;
  let mean = along * share;
  if (at.first + local < u.queries) {
    statistics[at.statistics + token] = top;
    statistics[at.statistics + token + u.statistics] = share;
    statistics[at.statistics + token + 2u * u.statistics] = mean;
    ${
      gives
        ? `${unroll(vectors, (d) => `let y${d} = u.scale * share * (b${d} - mean * a${d});`)}
    ${storeFours(headDim, 'y', 'at.q + token', 'u.qPitch', (d) => `y${d}`)}`
        : ''
    }
  }
}
`,
    grid: linearGrid(groups),
  });
}

/** An invocation owns a key, and holds dk in `a` and dv in `b`. Queries after the last have no share. */
function keysKernel(options: GradientOptions): Kernel {
  const { headDim, keys, causal = false, of } = options;
  const vectors = vectorsOf(headDim);
  const tokens = stagedTokens(headDim);
  const { uniforms, groups } = placeUniforms(options, keys, LANES);
  const before = of === 'qkv' ? 1 : 0; // gradients before dk in y
  const row = (gradient: number) => `at.k + token + ${gradient}u * u.channels * u.kPitch`;
  return defineKernel({
    name: `attentionGradient.tile.keys.${before}.${causal ? 'causal.' : ''}${headDim}`,
    bindings: KEYS_BINDINGS,
    uniforms,
    body: /* wgsl */ `
${placeWgsl(LANES)}${loadsWgsl(['q', 'k', 'v', 'dy'])}
${stagedMemory('queriesStaged', headDim)}
${stagedMemory('gradientsStaged', headDim)}
var<workgroup> ofQueries: array<vec3f, ${tokens}>;
${stagedMain}
  let at = placeOf(linearGroup(group, groups));
  if (at.outside) { return; }
  let token = min(at.first + local, u.keys - 1u);
  ${unroll(vectors, (d) => `let k${d} = four_k(at.k + token, ${4 * d}u, u.kPitch) * u.scale; let v${d} = four_v(at.k + token, ${4 * d}u, u.kPitch);`)}
  ${unroll(vectors, (d) => `var a${d} = vec4f(); var b${d} = vec4f();`)}
  for (var query = ${causal ? `at.first / ${tokens}u * ${tokens}u` : '0u'}; query < u.queries; query += ${tokens}u) {
    ${stage(headDim, 'query', 'u.queries', [
      ['q', 'queriesStaged', 'at.q', 'u.qPitch'],
      ['dy', 'gradientsStaged', 'at.q', 'u.qPitch'],
    ])}
    if (local < ${tokens}u) {
      let other = at.statistics + min(query + local, u.queries - 1u);
      ofQueries[local] = vec3f(statistics[other],
        select(0.0, statistics[other + u.statistics], query + local < u.queries), statistics[other + 2u * u.statistics]);
    }
    workgroupBarrier();
    for (var i = 0u; i < ${tokens}u; i++) {
      let other = ofQueries[i];
      let s = ${dotStaged(headDim, 'queriesStaged', 'i', (d) => `k${d}`)};
      let p = ${causal ? 'select(0.0, exp(s - other.x) * other.y, token <= query + i)' : 'exp(s - other.x) * other.y'};
      let e = p * (${dotStaged(headDim, 'gradientsStaged', 'i', (d) => `v${d}`)} - other.z);
      ${unroll(vectors, (d) => `a${d} = fma(queriesStaged[${d * tokens}u + i], vec4f(e), a${d}); b${d} = fma(gradientsStaged[${d * tokens}u + i], vec4f(p), b${d});`)}
    }
  }
  if (at.first + local < u.keys) {
    ${unroll(vectors, (d) => `let dk${d} = u.scale * a${d};`)}
    ${storeFours(headDim, 'y', row(before), 'u.kPitch', (d) => `dk${d}`)}
    ${storeFours(headDim, 'y', row(before + 1), 'u.kPitch', (d) => `b${d}`)}
  }
}
`,
    grid: linearGrid(groups),
  });
}

/** Returns the routine of `attentionGradient` for heads of at most `LARGEST_TILE_GRADIENT_HEAD`. */
export const fusedTileGradient = (_: Capabilities, options: GradientOptions): Routine =>
  fusedGradientSteps(options, queriesKernel(options), () => keysKernel(options));
