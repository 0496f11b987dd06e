// Scaled dot-product attention over channel-major rows.
//
// Versions, each with its idea. lavapipe: 2 cores, Mesa 25.0.7; prototypes with 8x4 heads of 256 tokens x 64.
// H200: bench/results/nvidia-h200.json.
// - Flash attention with one query per lane, keys and values loaded uniformly: 133 ms on lavapipe (15.7 on
//   Mesa 26.2.6).
// - Two GEMMs around a column softmax (attention-gemm.ts): 11.8 ms (46 GFLOP/s) on lavapipe, or 8.9 + 2.0 +
//   3.8 ms by step. With 8 heads of 40 and 4,096 tokens 15 GFLOP/s with long rows of scores, and 34 with the scores
//   of 64 queries together in memory and tiles of 40 rows. On the H200 2.6 TFLOP/s for 8 heads of 40 with 4,096 tokens (n = 4) and 17.1 for 16 heads
//   of 72 with 256 (n = 8).
// - One kernel for small heads (attention-fused.ts), keys broadcast from lane to lane: 26 GFLOP/s on lavapipe
//   for 49 tokens in heads of 16; the two GEMMs reach 9. Its form without subgroups (`fusedPlain`) reaches 5.0
//   TFLOP/s on the H200 (6 heads, n = 256).
// - The same with keys and values staged in workgroup memory (attention-tile.ts), for heads of up to 64 on GPUs: not
//   measured yet.

import { ShapeError } from '../../errors.ts';
import type { Capabilities } from '../device/device.ts';
import type { Routine } from '../device/routine.ts';
import { attentionByGemm } from './attention-gemm.ts';
import type { AttentionOptions } from './attention-options.ts';
import { ATTENTIONS } from './families.ts';

/**
 * Returns a routine for y = v softmax(scale · kᵀ q) within every head and sample, over the keys that a query
 * sees. Scores and softmax are f32.
 *
 * Operands: q [heads·headDim, n, 1, queries]; k and v [heads·headDim, n, 1, keys], head h in the rows from
 * h·headDim on; y like q. q, k and v may be ranges of rows of one buffer.
 * @throws ShapeError if a dimension is not positive, or a causal attention has different numbers of keys and queries.
 */
export function attention(capabilities: Capabilities, options: AttentionOptions): Routine {
  const { heads, headDim, n, queries, keys, causal = false } = options;
  if ([heads, headDim, n, queries, keys].some((v) => !Number.isInteger(v) || v < 1))
    throw new ShapeError(
      `attention: expected positive integers, got ${heads} heads of ${headDim}, ${n} samples, ${queries} queries and ${keys} keys`,
    );
  if (causal && queries !== keys)
    throw new ShapeError(
      `attention: expected as many keys as queries in a causal attention, got ${queries} queries and ${keys} keys`,
    );
  const { fused, fusedUpTo } = ATTENTIONS[capabilities.family];
  return (headDim <= fusedUpTo ? fused : attentionByGemm)(capabilities, options);
}
