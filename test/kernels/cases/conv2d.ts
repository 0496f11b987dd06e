// Convolutions to check.

import type { Conv2dOptions } from '../../../src/kernels/conv2d/conv2d.ts';

export interface ConvolutionCase {
  readonly name: string;
  readonly options: Conv2dOptions;
}

type Extra = Partial<Conv2dOptions>;

const SAME = { kernel: [3, 3], padding: [1, 1, 1, 1] } as const;

/** A 3x3 convolution that keeps the size. */
const same = (c: number, oc: number, n: number, h: number, w = h, extra: Extra = {}): ConvolutionCase => {
  const options: Conv2dOptions = {
    x: [c, n, h, w],
    outChannels: oc,
    ...SAME,
    bias: true,
    weights: 'f32',
    ...extra,
  };
  const tags = [
    options.compact && 'compact',
    options.kernel.join('x'),
    options.stride && `stride ${options.stride}`,
    options.upsample && 'upsample',
    options.affine && `affine ${options.affine}`,
    options.embedding && 'embedding',
    options.residual && 'residual',
    options.scale && `scale ${options.scale}`,
    !options.bias && 'no bias',
    options.weights === 'f16' && 'f16',
  ];
  return { name: `${c}->${oc} ${h}x${w} n=${n} ${tags.filter(Boolean).join(', ')}`, options };
};

const all: Extra = { affine: 'silu', embedding: true, residual: true, scale: 0.7 };
const down: Extra = { stride: 2 };
const up: Extra = { upsample: 2 };

export const cases: readonly ConvolutionCase[] = [
  // the smallest, and channels on both sides of a tile
  same(1, 1, 1, 1),
  same(1, 1, 3, 1, 1, all),
  same(3, 5, 2, 5, 3),
  same(7, 15, 3, 5, 3, all),
  same(8, 16, 1, 4),
  same(9, 17, 2, 6, 9, { affine: 'none' }),
  same(31, 31, 2, 7, 7, all),
  same(32, 32, 1, 8, 8, all),
  same(33, 33, 1, 9, 8, { ...all, weights: 'f16' }),
  same(64, 65, 1, 8, 12, { bias: false }),
  // those of the shipped network
  same(1, 16, 3, 28),
  same(16, 1, 2, 28, 28, { affine: 'silu' }),
  same(16, 16, 3, 28, 28, all),
  same(48, 16, 2, 28, 28, { affine: 'silu', embedding: true }),
  same(32, 32, 3, 14, 14, all),
  same(16, 32, 2, 14, 14, { affine: 'silu', weights: 'f16' }),
  same(64, 64, 5, 7, 7, all),
  same(192, 96, 2, 7, 7, { affine: 'silu', residual: true }),
  same(128, 64, 9, 7, 7, { ...all, weights: 'f16' }),
  same(64, 96, 17, 7, 7, { residual: true }),
  same(16, 16, 3, 28, 28, down),
  same(32, 32, 5, 14, 14, down),
  same(32, 32, 3, 14, 14, up),
  same(64, 64, 5, 7, 7, { ...up, weights: 'f16' }),
  // larger images
  same(128, 128, 1, 16, 16, all),
  same(4, 40, 2, 33, 31, all),
  same(20, 12, 1, 64, 32, { residual: true }),
  same(24, 24, 2, 6, 5, { ...up, ...all }),
  same(3, 3, 2, 1, 2, up),
  // weights whose transforms are not kept
  same(20, 37, 2, 16, 16, { ...all, compact: true }),
  same(9, 40, 3, 17, 13, { compact: true, weights: 'f16' }),
  same(33, 41, 3, 9, 13, { ...all, compact: true, weights: 'f16' }),
  same(40, 33, 2, 8, 8, { affine: 'none', residual: true, scale: 0.7, compact: true }),
  same(24, 20, 2, 6, 5, { ...up, ...all, compact: true, weights: 'f16' }),
  same(12, 20, 3, 9, 7, { ...down, compact: true, weights: 'f16' }),
  same(8, 9, 2, 8, 6, { kernel: [3, 3], padding: [2, 0, 1, 3], ...all, compact: true }),
  // other options
  same(6, 10, 3, 9, 7, { ...down, ...all, kernel: [3, 3], padding: [0, 0, 1, 1] }),
  same(5, 9, 2, 8, 6, { kernel: [3, 3], padding: [0, 0, 0, 0] }),
  same(5, 9, 2, 8, 6, { kernel: [3, 3], padding: [2, 0, 1, 3], ...all }),
  same(12, 20, 3, 7, 7, { kernel: [1, 1], padding: [0, 0, 0, 0], ...all }),
  same(40, 24, 3, 5, 5, { kernel: [1, 1], padding: [0, 0, 0, 0], weights: 'f16' }),
  same(12, 20, 2, 8, 8, { kernel: [1, 1], padding: [0, 0, 0, 0], ...down }),
  same(3, 8, 2, 32, 32, { kernel: [4, 4], stride: 4, padding: [0, 0, 0, 0] }),
  same(3, 8, 1, 11, 13, { kernel: [7, 5], stride: 3, padding: [3, 2, 2, 1], ...all }),
  same(2, 3, 1, 5, 5, { kernel: [2, 2], padding: [1, 0, 0, 1], ...up }),
];
