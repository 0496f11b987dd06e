// Attention in one kernel for GPUs: scores never leave the registers, and the keys and values of a head are staged in
// workgroup memory for all queries of a workgroup. attention.ts lists the versions of attention.
//
// It has not been measured on a GPU yet; its tests run on software adapters. Estimates, per query and key of a head of 40
// (64), from the WGSL:
// - 80 (128) multiply-adds and one exponential. With two queries per invocation (one), a read of 16 bytes of workgroup
//   memory, whose address is the same in all lanes, serves 8 (4) multiply-adds, so that reads do not limit more than
//   half of a GPU's multiply-adds.
// - `fusedPlain` reads 80 (128) words through the caches for as many multiply-adds, and two matrix products around a
//   softmax write and read each score four times: 16 bytes of memory for 160 operations, 2.6 TFLOP/s measured on an H200
//   for 8 heads of 40 with 4,096 tokens.
// - 8 heads of 4,096 tokens give 256 workgroups per sample, so the keys need not be split among workgroups. Splitting
//   them by the number of workgroups would make a sample's bytes depend on the batch.

import type { Capabilities } from '../device/device.ts';
import { ceilDiv, linearGrid, read, write } from '../device/kernel.ts';
import { type Routine, single } from '../device/routine.ts';
import { unroll } from '../gemm/gemm-spec.ts';
import type { AttentionOptions } from './attention-options.ts';
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

/** Heads larger than this leave too few registers for q and y of a query. */
export const LARGEST_TILE_HEAD = 64;

/** Keys between two looks at the largest score. */
const TURN = 4;

/** Returns the queries of an invocation: as many as 192 registers hold, if the queries fill the lanes. */
const slotsFor = (headDim: number, queries: number): number =>
  Math.max(1, Math.min(4, Math.floor(96 / headDim), ceilDiv(queries, LANES)));

/**
 * An invocation owns every 64th query of a block, with q and y in registers. The softmax is computed online: the largest
 * score of four keys rescales the sums so far. No order depends on n. Invocations after the last query repeat it. Causal:
 * the loop ends with the key of the block's last query, and each query ignores later keys than its own.
 */
export function fusedTile(_: Capabilities, options: AttentionOptions): Routine {
  const { headDim, queries, causal = false } = options;
  const slots = slotsFor(headDim, queries);
  const owned = LANES * slots;
  const vectors = vectorsOf(headDim);
  const tokens = stagedTokens(headDim);
  const { uniforms, groups } = placeUniforms(options, queries, owned);
  const each = (line: (j: number) => string) => unroll(slots, line);
  const four = (line: (i: number) => string, separator: string) =>
    Array.from({ length: TURN }, (_, i) => line(i)).join(separator);
  return single({
    name: `attention.tile.${causal ? 'causal.' : ''}${headDim}x${slots}`,
    bindings: [read('q'), read('k'), read('v'), write('y')],
    uniforms,
    body: /* wgsl */ `
const NEVER = -3e38;
${placeWgsl(owned)}${loadsWgsl(['q', 'k', 'v'])}
${stagedMemory('keysStaged', headDim)}
${stagedMemory('valuesStaged', headDim)}
${stagedMain}
  let at = placeOf(linearGroup(group, groups));
  if (at.outside) { return; }
  ${each(
    (j) => `let token${j} = min(at.first + local + ${j * LANES}u, u.queries - 1u);
  ${unroll(vectors, (d) => `let q${d}_${j} = four_q(at.q + token${j}, ${4 * d}u, u.qPitch) * u.scale; var y${d}_${j} = vec4f();`)}
  var top${j} = NEVER;
  var sum${j} = 0.0;`,
  )}
  let keys = ${causal ? `min(u.keys, at.first + ${owned}u)` : 'u.keys'};
  for (var key = 0u; key < keys; key += ${tokens}u) {
    ${stage(headDim, 'key', 'u.keys', [
      ['k', 'keysStaged', 'at.k', 'u.kPitch'],
      ['v', 'valuesStaged', 'at.k', 'u.kPitch'],
    ])}
    let end = min(${tokens}u, keys - key);
    for (var i = 0u; i < end; i += ${TURN}u) {
      ${each(
        (
          j,
        ) => `${four((i) => `let s${i}_${j} = select(NEVER, ${dotStaged(headDim, 'keysStaged', `i + ${i}u`, (d) => `q${d}_${j}`)}, key + i + ${i}u ${causal ? `<= token${j}` : '< u.keys'});`, '\n      ')}
      let above${j} = max(top${j}, ${`max(max(s0_${j}, s1_${j}), max(s2_${j}, s3_${j}))`});
      let shrink${j} = exp(top${j} - above${j});
      top${j} = above${j};
      ${four((i) => `let p${i}_${j} = exp(s${i}_${j} - above${j});`, ' ')}
      sum${j} = sum${j} * shrink${j} + (${four((i) => `p${i}_${j}`, ' + ')});`,
      )}
      ${unroll(
        vectors,
        (d) => `{ ${four((i) => `let v${i} = valuesStaged[${d * tokens}u + i + ${i}u];`, ' ')}
      ${each((j) => `y${d}_${j} = fma(v3, vec4f(p3_${j}), fma(v2, vec4f(p2_${j}), fma(v1, vec4f(p1_${j}), fma(v0, vec4f(p0_${j}), y${d}_${j} * shrink${j}))));`)} }`,
      )}
    }
  }
  ${each(
    (j) => `if (at.first + local + ${j * LANES}u < u.queries) {
    let share = 1 / sum${j};
    ${unroll(vectors, (d) => `let y${d} = y${d}_${j} * share;`)}
    ${storeFours(headDim, 'y', `at.q + token${j}`, 'u.qPitch', (d) => `y${d}`)}
  }`,
  )}
}
`,
    grid: linearGrid(groups),
  });
}
