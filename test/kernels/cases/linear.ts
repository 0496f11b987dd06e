// Dense layers and 1x1 convolutions to check.

import type { Shape } from '../../../src/kernels/device/tensor.ts';
import type { LinearOptions } from '../../../src/kernels/gemm/linear.ts';

export interface LinearCase {
  readonly name: string;
  readonly options: LinearOptions;
}

type Extra = Partial<LinearOptions>;

const layer = (x: Shape, outChannels: number, extra: Extra = {}): LinearCase => {
  const options: LinearOptions = { x, outChannels, bias: true, weights: 'f32', ...extra };
  const tags = [
    !options.bias && 'no bias',
    options.activation,
    options.residual && 'residual',
    options.scale && `scale ${options.scale}`,
    options.weights === 'f16' && 'f16',
  ];
  return { name: [`${x[0]}->${outChannels} [${x}]`, ...tags.filter(Boolean)].join(', '), options };
};

const all: Extra = { activation: 'silu', residual: true, scale: 0.7 };

export const cases: readonly LinearCase[] = [
  // the smallest, and rows, columns and sums on both sides of a tile
  layer([1, 1, 1, 1], 1),
  layer([1, 3, 1, 1], 1, all),
  layer([2, 1, 1, 1], 3, { bias: false }),
  layer([3, 2, 5, 3], 5, all),
  layer([15, 1, 3, 21], 15),
  layer([16, 1, 8, 8], 16, all),
  layer([17, 1, 5, 13], 17, all),
  layer([31, 3, 7, 3], 31, { residual: true }),
  layer([32, 2, 8, 4], 32, { weights: 'f16' }),
  layer([33, 5, 1, 13], 33, { ...all, weights: 'f16' }),
  layer([8, 9, 1, 1], 63, { activation: 'relu' }),
  layer([9, 1, 1, 127], 64, { activation: 'quick-gelu', weights: 'f16' }),
  layer([7, 1, 1, 129], 65, all),
  layer([1, 2, 28, 28], 1, { weights: 'f16' }),
  // those of the shipped network
  layer([16, 6, 1, 1], 64, { activation: 'silu' }),
  layer([64, 7, 1, 1], 128, { weights: 'f16' }),
  layer([64, 3, 7, 7], 192, { bias: false }),
  layer([64, 5, 7, 7], 64, { residual: true }),
  layer([48, 2, 28, 28], 16),
  layer([16, 2, 28, 28], 16, { weights: 'f16' }),
  layer([96, 3, 14, 14], 32, { weights: 'f16', scale: Math.SQRT1_2 }),
  layer([192, 3, 7, 7], 96),
  // larger
  layer([320, 2, 1, 77], 320, { weights: 'f16' }),
  layer([513, 1, 16, 17], 129, all),
];
