// Convolutions.

import type { Activation } from '../../kernels/activation.ts';
import { conv2d, outputSize } from '../../kernels/conv2d.ts';
import type { Shape } from '../../kernels/tensor.ts';
import { weightGradient } from '../../kernels/weightgradient.ts';
import type { Value } from '../value.ts';
import { inputGradient } from './conv2d-backward.ts';
import { isRow, none, type Op, residualFits, same, text, want } from './op.ts';

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
  backward({ attributes, inputs: { x, affine }, constants: { weight }, dy, wants, apply }) {
    const { kernel, stride, padding, activation = 'none', scale: factor = 1 } = attributes;
    want(
      !attributes.upsample && (!affine || (activation === 'none' && !wants('affine'))),
      () =>
        'conv2d: a fused norm or upsampling has no derivative: graphs are differentiated before they are fused',
    );
    const scaled = (value: Value) => (factor === 1 ? value : apply('scaled', { factor }, { x: value }));
    const rows = (from: number) => apply('slice', { from, count: x!.shape[0] }, { x: affine });
    const gradient = () => inputGradient(attributes, x!.shape, weight!, dy, apply);
    const seen = () =>
      affine
        ? apply(
            'addRows',
            {},
            {
              x: apply('scaleRows', {}, { x, gate: rows(0) }),
              embedding: rows(x!.shape[0]),
            },
          )
        : x;
    return {
      ...(wants('x')
        ? { x: affine ? apply('scaleRows', {}, { x: gradient(), gate: rows(0) }) : gradient() }
        : {}),
      ...(wants('weight')
        ? { weight: scaled(apply('weightGradient', { kernel, stride, padding }, { x: seen(), dy })) }
        : {}),
      ...(wants('bias') ? { bias: scaled(apply('sumColumns', {}, { x: dy })) } : {}),
      ...(wants('embedding') ? { embedding: scaled(apply('sumPixels', {}, { x: dy })) } : {}),
      ...(wants('residual') ? { residual: scaled(dy) } : {}),
    };
  },
};

/** [oc, 1, 1, c·kh·kw]: the gradient of the weights, from a convolution's x and the dy of its result. */
export type WeightGradientAttributes = Pick<Conv2dAttributes, 'kernel' | 'stride' | 'padding'>;

export const weightGradientOp: Op<WeightGradientAttributes> = {
  infer({ x, dy }, attributes) {
    const y: Shape = [dy![0], x![1], ...outputSize({ x: x!, ...attributes })];
    want(same(y, dy!), () => `weightGradient: dy is ${text(dy)}, the result was ${text(y)}`);
    return [dy![0], 1, 1, x![0] * attributes.kernel[0] * attributes.kernel[1]];
  },
  constants: none,
  forward: (capabilities, { inputs }, attributes) =>
    weightGradient(capabilities, { ...attributes, x: inputs.x!, outChannels: inputs.dy![0] }),
};
