// Attention as two batched GEMMs around a softmax: for heads and token counts that fill a GEMM's tiles.

import type { AttentionOptions } from './attention.ts';
import {
  type Heads,
  packedHeads,
  packHeads,
  transposedHeads,
  transposeHeads,
  unpackHeads,
} from './attention-pack.ts';
import type { Capabilities } from './device.ts';
import { gemm } from './gemm.ts';
import type { Matrices } from './gemm-spec.ts';
import { ceilDiv } from './kernel.ts';
import type { Routine, Step } from './routine.ts';
import { columnSoftmax } from './softmax.ts';
import { pitch } from './tensor.ts';

/** Scores are made and used in parts of at most so many bytes, so that a long sequence needs no huge scratch. */
const SCORE_BYTES = 64 * 2 ** 20;
/** Columns of a part of a matrix too large for one part: whole tiles of every family. */
const QUERY_STEP = 128;

const pad4 = (v: number): number => ceilDiv(v, 4) * 4;

/** Where the matrices [heads][n] of a tensor lie, and the same from matrix (h, s) and column t on. */
interface Place {
  readonly operand: string;
  readonly pitch: number;
  readonly inner: number;
  readonly outer: number;
}
const from = ({ pitch, inner, outer }: Place, h = 0, s = 0, t = 0): Matrices => ({
  pitch,
  inner,
  outer,
  offset: h * outer + s * inner + t,
});

/** Ranges [start, size) that cover `count` in steps. */
function* parts(count: number, step: number): Generator<readonly [start: number, size: number]> {
  for (let start = 0; start < count; start += step) yield [start, Math.min(step, count - start)];
}

/**
 * Rows of the score matrix are keys, its columns queries: s[j][i] = scale Σ_d k[d][j] q[d][i], softmax down the
 * columns (each lane owns whole columns: nothing is reduced across lanes), y[d][i] = Σ_j v[d][j] s[j][i].
 * Channel-major q and k are the k-major factors of the first product as they are; v is transposed for the second.
 * Token counts that are no multiple of 4 go through padded copies, because a GEMM reads vec4s.
 * Causal: a part of the queries is multiplied with the keys up to its last one, and the softmax gives keys behind
 * a query the weight 0.
 */
export function attentionByGemm(capabilities: Capabilities, options: AttentionOptions): Routine {
  const { heads, headDim, n, queries, keys, scale, causal = false } = options;
  const queryHeads: Heads = { heads, dim: headDim, n, tokens: queries, pitch: pitch([1, n, 1, queries]) };
  const keyHeads: Heads = { heads, dim: headDim, n, tokens: keys, pitch: pitch([1, n, 1, keys]) };
  const steps: Step[] = [];
  const scratch: Record<string, number> = {};

  const inRows = (operand: string, { pitch, tokens, dim }: Heads): Place => ({
    operand,
    pitch,
    inner: tokens,
    outer: dim * pitch,
  });
  const padded = (operand: string, { tokens, dim }: Heads): Place => ({
    operand,
    pitch: pad4(tokens),
    inner: dim * pad4(tokens),
    outer: n * dim * pad4(tokens),
  });
  /** A factor as it lies, or a copy of it with padded rows. */
  const factor = (operand: string, tokens: Heads): Place => {
    if (tokens.tokens % 4 === 0) return inRows(operand, tokens);
    const copy = `${operand}Packed`;
    scratch[copy] = 4 * packedHeads(tokens);
    steps.push({ kernel: packHeads(capabilities, tokens), operands: [operand, copy] });
    return padded(copy, tokens);
  };
  const q = factor('q', queryHeads);
  const k = factor('k', keyHeads);
  scratch.vTransposed = 4 * transposedHeads(keyHeads);
  steps.push({ kernel: transposeHeads(capabilities, keyHeads), operands: ['v', 'vTransposed'] });
  const v: Place = {
    operand: 'vTransposed',
    pitch: pad4(headDim),
    inner: keys * pad4(headDim),
    outer: n * keys * pad4(headDim),
  };
  const direct = queries % 4 === 0;
  const y = direct ? inRows('y', queryHeads) : padded('yPacked', queryHeads);
  if (!direct) scratch.yPacked = 4 * packedHeads(queryHeads);

  const limit = Math.min(SCORE_BYTES, capabilities.maxBindingBytes) / 4;
  const width = pad4(queries);
  const queryStep =
    keys * width <= limit
      ? queries
      : Math.max(QUERY_STEP, Math.floor(limit / keys / QUERY_STEP) * QUERY_STEP);
  const matrices = Math.max(1, Math.floor(limit / (keys * pad4(Math.min(queryStep, queries)))));
  const headStep = Math.max(1, Math.floor(matrices / n));
  const sampleStep = Math.min(n, matrices);
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
              a: from(k, h, s),
              b: from(q, h, s, t),
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
              a: from(v, h, s),
              b: scores,
              c: from(y, h, s, t),
            }),
            operands: [v.operand, 'scores', y.operand],
          },
        );
      }
  if (!direct) steps.push({ kernel: unpackHeads(capabilities, queryHeads), operands: ['yPacked', 'y'] });
  return { steps, scratch, packing: {} };
}
