// A slow, obvious implementation of attention. Every sum is in f64; arrays are in the usual [n, c, tokens]
// order.

import type { AttentionOptions } from '../../src/kernels/attention/attention-options.ts';

/**
 * Returns y [n, heads·headDim, queries]; q has the shape of y, and k and v are [n, heads·headDim, keys]. If
 * causal, query i sees keys 0 to i.
 */
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

/** Returns the gradients of Σ dy·y with respect to q, k and v, each laid out like its operand. */
export function referenceAttentionGradients(
  { heads, headDim, n, queries, keys, scale, causal = false }: AttentionOptions,
  {
    q,
    k,
    v,
  }: { readonly q: ArrayLike<number>; readonly k: ArrayLike<number>; readonly v: ArrayLike<number> },
  dy: ArrayLike<number>,
): { readonly q: Float64Array; readonly k: Float64Array; readonly v: Float64Array } {
  const made = {
    q: new Float64Array(q.length),
    k: new Float64Array(k.length),
    v: new Float64Array(v.length),
  };
  for (let matrix = 0; matrix < n * heads; matrix++)
    for (let i = 0; i < queries; i++) {
      const inQ = (d: number) => (matrix * headDim + d) * queries + i;
      const inK = (d: number, j: number) => (matrix * headDim + d) * keys + j;
      const seen = causal ? i + 1 : keys;
      const products = (a: (d: number) => number, b: (d: number, j: number) => number) =>
        Array.from({ length: seen }, (_, j) => {
          let dot = 0;
          for (let d = 0; d < headDim; d++) dot += a(d) * b(d, j);
          return dot;
        });
      const scores = products(
        (d) => q[inQ(d)]!,
        (d, j) => k[inK(d, j)]!,
      ).map((dot) => scale * dot);
      const top = scores.reduce((a, b) => Math.max(a, b));
      const exponentials = scores.map((score) => Math.exp(score - top));
      const total = exponentials.reduce((a, b) => a + b);
      const p = exponentials.map((e) => e / total);
      const dp = products(
        (d) => dy[inQ(d)]!,
        (d, j) => v[inK(d, j)]!,
      );
      const mean = p.reduce((sum, weight, j) => sum + weight * dp[j]!, 0);
      for (let j = 0; j < seen; j++) {
        const ds = scale * p[j]! * (dp[j]! - mean);
        for (let d = 0; d < headDim; d++) {
          made.q[inQ(d)]! += ds * k[inK(d, j)]!;
          made.k[inK(d, j)]! += ds * q[inQ(d)]!;
          made.v[inK(d, j)]! += p[j]! * dy[inQ(d)]!;
        }
      }
    }
  return made;
}
