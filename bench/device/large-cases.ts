// Cases that are large enough for a GPU. Those of the kernel benchmark are chosen for two CPU cores.

import type { BenchCase } from '../../src/bench/case.ts';
import type { CaseOptions } from '../../src/bench/case-options.ts';
import { benchCase } from '../../src/bench/cases.ts';
import type { Shape } from '../../src/kernels/device/tensor.ts';

const layer = (x: Shape, channels: number, weights: 'f32' | 'f16' = 'f32'): BenchCase =>
  benchCase('linear', x, { channels, bias: false, weights });

const convolution = (c: number, n: number, side: number, options: CaseOptions = {}): BenchCase =>
  benchCase('conv2d', [c, n, side, side], options);

/** Returns an attention and its gradient. */
const attention = (heads: number, headDim: number, n: number, queries: number, keys = queries): BenchCase[] =>
  (['attention', 'attentionGradient'] as const).map((op) =>
    benchCase(op, [heads * headDim, n, 1, queries], { heads, keys }),
  );

/** How large networks are planned: weights in f16, without copies of transformed weights. */
const compact = { compact: true, weights: 'f16' } as const;

export const largeEntries: readonly BenchCase[] = [
  layer([1024, 1, 1, 1024], 1024),
  layer([2048, 1, 1, 2048], 2048),
  layer([4096, 1, 1, 4096], 4096),
  layer([4096, 1, 1, 4096], 4096, 'f16'),
  layer([320, 16, 64, 64], 320, 'f16'),
  layer([320, 16, 64, 64], 2560, 'f16'),
  layer([1280, 16, 16, 16], 10240, 'f16'),
  layer([1152, 8, 16, 16], 4608, 'f16'),
  convolution(128, 64, 32),
  convolution(256, 64, 16),
  convolution(320, 16, 64),
  convolution(320, 16, 64, compact),
  convolution(640, 16, 32, compact),
  convolution(1280, 16, 16, compact),
  convolution(1280, 16, 8, compact),
  convolution(320, 16, 64, { ...compact, stride: 2 }),
  convolution(16, 1024, 28),
  convolution(32, 1024, 14),
  convolution(96, 1024, 7),
  ...attention(8, 40, 4, 4096),
  ...attention(8, 40, 16, 4096, 77),
  ...attention(8, 80, 16, 1024),
  ...attention(16, 72, 8, 256),
  benchCase('weightGradient', [128, 64, 32, 32]),
  ...(['groupNorm', 'groupNormGradient', 'groupNormAffine'] as const).flatMap((op) => [
    benchCase(op, [320, 16, 64, 64], { groups: 32 }),
    benchCase(op, [128, 64, 32, 32], { groups: 32 }),
  ]),
  benchCase('activation', [320, 16, 64, 64]),
  benchCase('add', [320, 16, 64, 64]),
];
