// The slow, obvious attention: every sum in f64, in the usual [n, c, tokens] order.

import type { AttentionOptions } from '../../src/kernels/attention.ts';

/** y [n, heads·headDim, queries] of q like y, k and v [n, heads·headDim, keys]; causal: query i sees keys 0 to i. */
export function referenceAttention(
  { heads, headDim, n, queries, keys, scale, causal = false }: AttentionOptions,
  {
    q,
    k,
    v,
  }: { readonly q: ArrayLike<number>; readonly k: ArrayLike<number>; readonly v: ArrayLike<number> },
): Float64Array {
  const y = new Float64Array(n * heads * headDim * queries);
  for (let matrix = 0; matrix < n * heads; matrix++)
    for (let i = 0; i < queries; i++) {
      const row = (d: number) => matrix * headDim + d;
      const scores = Float64Array.from({ length: keys }, (_, j) => {
        let dot = 0;
        for (let d = 0; d < headDim; d++) dot += q[row(d) * queries + i]! * k[row(d) * keys + j]!;
        return causal && j > i ? Number.NEGATIVE_INFINITY : scale * dot;
      });
      const top = scores.reduce((a, b) => Math.max(a, b));
      const weights = scores.map((score) => Math.exp(score - top));
      const total = weights.reduce((a, b) => a + b);
      for (let d = 0; d < headDim; d++) {
        let sum = 0;
        for (let j = 0; j < keys; j++) sum += weights[j]! * v[row(d) * keys + j]!;
        y[row(d) * queries + i] = sum / total;
      }
    }
  return y;
}
