// Convolutions.

import type { Activation } from '../../kernels/activation.ts';
import { conv2d, outputSize } from '../../kernels/conv2d.ts';
import type { Shape } from '../../kernels/tensor.ts';
import { isRow, type Op, residualFits, text, want } from './op.ts';

type Padding = readonly [top: number, left: number, bottom: number, right: number];

/** y = (conv(act(a·x + b)) + bias + embedding + residual)·scale, nearest upsampling of x in front. */
export interface Conv2dAttributes {
  readonly outChannels: number;
  readonly kernel: readonly [number, number];
  readonly stride: number;
  readonly padding: Padding;
  readonly upsample?: 2;
  readonly activation?: Activation;
  readonly scale?: number;
}

export const conv2dOp: Op<Conv2dAttributes> = {
  infer({ x, residual, embedding, affine }, attributes) {
    const [c, n, h, w] = x!;
    const y: Shape = [attributes.outChannels, n, ...outputSize({ x: x!, ...attributes })];
    residualFits('conv2d', y, residual);
    want(
      !embedding || isRow(y, embedding),
      () => `conv2d: the embedding is ${text(embedding)}, the result ${text(y)}`,
    );
    want(
      !affine || isRow([2 * c, n, h, w], affine),
      () => `conv2d: affine is ${text(affine)}, x is ${text(x)}`,
    );
    return y;
  },
  constants: ({ x }, { outChannels, kernel }) => ({
    weight: outChannels * x![0] * kernel[0] * kernel[1],
    bias: outChannels,
  }),
  forward(capabilities, { inputs, has }, { activation, ...attributes }, weights, compact) {
    return conv2d(capabilities, {
      ...attributes,
      x: inputs.x!,
      bias: has('bias'),
      ...(has('affine') ? { affine: activation ?? 'none' } : {}),
      embedding: has('embedding'),
      residual: has('residual'),
      weights,
      compact,
    });
  },
};
