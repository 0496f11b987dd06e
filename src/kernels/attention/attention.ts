// Scaled dot-product attention over channel-major rows.

import { ShapeError } from '../../errors.ts';
import type { Capabilities } from '../device/device.ts';
import { type Routine, single } from '../device/routine.ts';
import { LARGEST_FUSED_HEAD } from './attention-fused.ts';
import { attentionByGemm } from './attention-gemm.ts';
import type { AttentionOptions } from './attention-options.ts';
import { ATTENTIONS } from './families.ts';

/**
 * y = v softmax(scale · kᵀ q) within every head and sample, over the keys that a query sees; scores and softmax
 * in f32.
 *
 * Operands: q [heads·headDim, n, 1, queries]; k and v [heads·headDim, n, 1, keys], head h in the rows from
 * h·headDim on; y like q. q, k and v may be ranges of rows of one buffer.
 * @throws ShapeError where a dimension is not positive, or a causal attention has more or fewer keys than queries.
 */
export function attention(capabilities: Capabilities, options: AttentionOptions): Routine {
  const { heads, headDim, n, queries, keys, causal = false } = options;
  if ([heads, headDim, n, queries, keys].some((v) => !Number.isInteger(v) || v < 1))
    throw new ShapeError(
      `attention: ${heads} heads of ${headDim}, ${n} samples, ${queries} queries and ${keys} keys must be whole and positive`,
    );
  if (causal && queries !== keys)
    throw new ShapeError(
      `attention: ${queries} queries and ${keys} keys, a causal attention has as many of both`,
    );
  if (headDim <= LARGEST_FUSED_HEAD)
    return single(ATTENTIONS[capabilities.family].fused(capabilities, options), ['q', 'k', 'v', 'y']);
  return attentionByGemm(capabilities, options);
}
