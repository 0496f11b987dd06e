// Attentions to check.

import type { AttentionOptions } from '../../../src/kernels/attention/attention-options.ts';

export interface AttentionCase {
  readonly name: string;
  readonly options: AttentionOptions;
}

const attend = (
  heads: number,
  headDim: number,
  n: number,
  queries: number,
  keys = queries,
): AttentionCase => ({
  name: `${heads}x${headDim} heads, n=${n}, ${queries} queries of ${keys} keys`,
  options: { heads, headDim, n, queries, keys, scale: headDim ** -0.5 },
});

const causal = (heads: number, headDim: number, n: number, tokens: number): AttentionCase => {
  const { name, options } = attend(heads, headDim, n, tokens);
  return { name: `${name}, causal`, options: { ...options, causal: true } };
};

export const cases: readonly AttentionCase[] = [
  // the smallest, and tokens and head sizes on both sides of a tile
  attend(1, 1, 1, 1),
  attend(2, 3, 3, 5),
  attend(1, 5, 2, 1, 9),
  attend(3, 8, 1, 8, 7),
  attend(2, 15, 2, 31),
  attend(2, 16, 2, 32),
  attend(2, 17, 2, 33),
  attend(1, 16, 3, 55, 57),
  attend(1, 16, 3, 64, 16),
  attend(1, 32, 2, 65, 63),
  // those of the shipped network
  attend(4, 16, 3, 49),
  attend(6, 16, 2, 49),
  attend(4, 16, 1, 196),
  // text
  attend(2, 64, 2, 77),
  attend(2, 40, 2, 64, 77),
  attend(2, 40, 1, 49, 77),
  // causal: one token, one more and one fewer than a subgroup and a block, text encoders
  causal(1, 1, 1, 1),
  causal(2, 3, 3, 5),
  causal(1, 16, 2, 8),
  causal(2, 15, 2, 57),
  causal(1, 16, 3, 64),
  causal(4, 10, 3, 77),
  causal(2, 32, 2, 129),
  causal(2, 33, 2, 9),
  causal(2, 64, 3, 77),
  causal(1, 40, 2, 128),
  // larger
  attend(2, 64, 2, 256),
  attend(1, 72, 1, 144, 300),
  // many queries, whose scores are stored in blocks: several samples and a rest, and several parts
  attend(3, 40, 2, 600, 77),
  attend(1, 36, 1, 1100, 2000),
];
