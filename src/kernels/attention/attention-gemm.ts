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

/**
 * The most bytes of scores at a time: they are computed and used in parts, so that long sequences need no huge scratch.
 */
const SCORE_BYTES = 64 * 2 ** 20;
/**
 * Rows of the score matrix are keys and its columns are queries: s[j][i] = scale Σ_d k[d][j] q[d][i]. The softmax runs
 * down the columns (each lane owns whole columns, so nothing is reduced across lanes). Then y[d][i] = Σ_j v[d][j]
 * s[j][i]. Channel-major q and k already are the k-major factors of the first product; v is transposed for the second.
 * Token counts that are not multiples of 4 need padded copies, because a GEMM reads vec4s. Causal: a part of the
 * queries is multiplied with the keys up to its last query, and the softmax gives keys after a query the weight 0.
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

  const limit = Math.min(SCORE_BYTES, capabilities.maxBindingBytes) / 4;
  const { headStep, sampleStep, queryStep } = scoreParts(options, keys, limit);
  scratch.scores = 0;
  for (const [h, headCount] of parts(heads, headStep))
    for (const [s, sampleCount] of parts(n, sampleStep))
      for (const [t, count] of parts(queries, queryStep)) {
        const batch = [headCount, sampleCount] as const;
        const score = pad4(count);
        const seen = causal ? t + count : keys;
        const scores: Matrices = { pitch: score, inner: seen * score, outer: sampleCount * seen * score };
        scratch.scores = Math.max(scratch.scores, 4 * headCount * sampleCount * seen * score);
        steps.push(
          {
            kernel: gemm(capabilities, {
              m: seen,
              k: headDim,
              columns: count,
              batch,
              a: matricesAt(k, h, s),
              b: matricesAt(q, h, s, t),
              c: scores,
              scale,
            }),
            operands: [k.operand, q.operand, 'scores'],
          },
          {
            kernel: columnSoftmax(capabilities, {
              matrices: headCount * sampleCount,
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
              columns: count,
              batch,
              a: matricesAt(v, h, s),
              b: scores,
              c: matricesAt(y, h, s, t),
            }),
            operands: [v.operand, 'scores', y.operand],
          },
        );
      }
  finish(queryHeads);
  return { steps, scratch, packing: {} };
}
