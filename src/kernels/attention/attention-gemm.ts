// Attention as two batched GEMMs around a softmax, for heads and token counts that fill a GEMM's tiles.
// attention.ts lists the versions of attention and their rates.

import type { Capabilities } from '../device/device.ts';
import { pad4 } from '../device/kernel.ts';
import type { Routine, Step } from '../device/routine.ts';
import { gemm } from '../gemm/gemm.ts';
import type { Matrices } from '../gemm/gemm-spec.ts';
import { columnSoftmax } from '../norm/softmax.ts';
import type { AttentionOptions } from './attention-options.ts';
import { headsOf, matricesAt, operandsOf, parts, scoreParts } from './attention-pack.ts';
import { SCORE_LAYOUTS } from './score-layout.ts';

/** Queries from which on their scores are stored in blocks, where a family has such blocks. */
const MANY_QUERIES = 512;

/** Yields the parts of all whole blocks of queries, in steps that are a multiple of the block, and then the rest. */
function* blockParts(queries: number, step: number, block: number): Generator<readonly [number, number]> {
  const whole = queries - (queries % block);
  yield* parts(whole, step);
  if (whole < queries) yield [whole, queries - whole];
}

/**
 * Rows of the score matrix are keys and its columns are queries: s[j][i] = scale Σ_d k[d][j] q[d][i]. The softmax runs
 * down the columns (each lane owns whole columns, so nothing is reduced across lanes). Then y[d][i] = Σ_j v[d][j]
 * s[j][i]. Channel-major q and k already are the k-major factors of the first product; v is transposed for the second.
 * Token counts that are not multiples of 4 need padded copies, because a GEMM reads vec4s. Causal: a part of the
 * queries is multiplied with the keys up to its last query, and the softmax gives keys after a query the weight 0.
 *
 * With many queries a row of scores is long, and on a software adapter its columns are far apart in memory: each row of a
 * few columns lies on another page. There the scores are stored as a batch of matrices, one for each block of queries, so
 * that the rows of a block follow each other. The parts are small enough to stay in the cache. 8 heads of 40 with 4,096
 * tokens take 0.63 s on lavapipe (2 cores, Mesa 25.0.7), and 1.41 s with long rows and parts of 64 MiB.
 */
export function attentionByGemm(capabilities: Capabilities, options: AttentionOptions): Routine {
  const { heads, headDim, n, queries, keys, scale, causal = false } = options;
  const queryHeads = headsOf(options, queries);
  const keyHeads = headsOf(options, keys);
  const steps: Step[] = [];
  const scratch: Record<string, number> = {};
  const { channels, tokens, result, finish } = operandsOf(capabilities, steps, scratch);
  const q = channels('q', queryHeads);
  const k = channels('k', keyHeads);
  const v = tokens('v', keyHeads);
  const y = result(queryHeads);

  const { queryBlock, bytes } = SCORE_LAYOUTS[capabilities.family];
  const block = causal || queries < MANY_QUERIES ? undefined : queryBlock;
  const limit = Math.min(bytes, capabilities.maxBindingBytes) / 4;
  // With blocks, a batch runs over heads and blocks instead of heads and samples.
  const together = block === undefined ? n : 1;
  const { headStep, sampleStep, queryStep } = scoreParts({ heads, n: together, queries }, keys, limit);
  scratch.scores = 0;
  for (const [h, headCount] of parts(heads, headStep))
    for (const [s, sampleCount] of parts(n, sampleStep))
      for (const [t, count] of block ? blockParts(queries, queryStep, block) : parts(queries, queryStep)) {
        const columns = block ? Math.min(block, count) : count;
        const inner = block ? count / columns : sampleCount;
        const batch = [headCount, inner] as const;
        const [ofKeys, ofQueries] = block ? [{ inner: 0 }, { inner: columns }] : [{}, {}];
        const score = pad4(columns);
        const seen = causal ? t + count : keys;
        const scores: Matrices = { pitch: score, inner: seen * score, outer: inner * seen * score };
        scratch.scores = Math.max(scratch.scores, 4 * headCount * inner * seen * score);
        steps.push(
          {
            kernel: gemm(capabilities, {
              m: seen,
              k: headDim,
              columns,
              batch,
              a: { ...matricesAt(k, h, s), ...ofKeys },
              b: { ...matricesAt(q, h, s, t), ...ofQueries },
              c: scores,
              scale,
            }),
            operands: [k.operand, q.operand, 'scores'],
          },
          {
            kernel: columnSoftmax(capabilities, {
              matrices: headCount * inner,
              keys: seen,
              pitch: score,
              ...(causal ? { firstQuery: t } : {}),
            }),
            operands: ['scores'],
          },
          {
            kernel: gemm(capabilities, {
              m: headDim,
              k: seen,
              columns,
              batch,
              a: { ...matricesAt(v, h, s), ...ofKeys },
              b: scores,
              c: { ...matricesAt(y, h, s, t), ...ofQueries },
            }),
            operands: [v.operand, 'scores', y.operand],
          },
        );
      }
  finish(queryHeads);
  return { steps, scratch, packing: {} };
}
