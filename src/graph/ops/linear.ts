// Dense layers over channels; also the 1x1 convolution.

import type { Shape } from '../../kernels/device/tensor.ts';
import type { Activation } from '../../kernels/elementwise/activation.ts';
import { linear } from '../../kernels/gemm/linear.ts';
import { sumsOfRanges, transposedWeight, weightGradientOp } from './conv2d.ts';
import { activationGradientOp, scaledOp } from './elementwise.ts';
import { checkShape, elements, type Op } from './op.ts';
import { sumColumnsOp } from './sums.ts';
import type { Value } from './value.ts';

/** y = (act(weight·x + bias) + residual)·scale, for each column of x (each pixel or token of each sample). */
export interface LinearAttributes {
  readonly outChannels: number;
  readonly activation?: Activation;
  readonly scale?: number;
}

export const linearOp: Op<LinearAttributes> = {
  infer({ x, residual }, { outChannels }) {
    const y: Shape = [outChannels, x![1], x![2], x![3]];
    if (residual) checkShape('linear', 'residual', y, residual);
    return y;
  },
  constants: ({ x }, { outChannels }) => ({ weight: outChannels * x![0], bias: outChannels }),
  flop: ({ inputs: { x }, output }) => 2 * elements(output) * x![0],
  adds: ({ operand }, { activation = 'none', scale = 1 }) =>
    operand === 'residual' && activation === 'none' && scale === 1,
  forward: (capabilities, { inputs, has }, attributes, weights) =>
    linear(capabilities, {
      ...attributes,
      x: inputs.x!,
      bias: has('bias'),
      residual: has('residual'),
      weights,
    }),
  split({ attributes, inputs: { x, ...others }, constants, ranges, apply }) {
    const { outChannels, activation = 'none', scale } = attributes;
    if (Object.keys(others).length > 0 || activation !== 'none') return undefined;
    return sumsOfRanges({ x: x!, outChannels, ranges, taps: 1, constants }, (range) =>
      apply(
        linearOp,
        { outChannels: outChannels / ranges, ...(range.last ? { scale } : {}) },
        range.inputs,
        range.constants,
      ),
    );
  },
  backward({ attributes, inputs: { x }, constants: { weight, bias }, dy, needs, apply }) {
    const { outChannels, activation = 'none', scale: factor = 1 } = attributes;
    const scaled = (value: Value) => (factor === 1 ? value : apply(scaledOp, { factor }, { x: value }));
    // The input of the activation is recomputed rather than kept.
    const dSum =
      activation === 'none' || !(needs('x') || needs('weight') || needs('bias'))
        ? dy
        : apply(
            activationGradientOp,
            { activation },
            { x: apply(linearOp, { outChannels }, { x }, { weight, bias }), dy },
          );
    const dx = () => {
      const [c] = x!.shape;
      const transposed = transposedWeight(weight!, outChannels, c, [1, 1]);
      return apply(linearOp, { outChannels: c, scale: factor }, { x: dSum }, { weight: transposed });
    };
    const one = { kernel: [1, 1], stride: 1, padding: [0, 0, 0, 0] } as const;
    return {
      ...(needs('x') ? { x: dx() } : {}),
      ...(needs('weight') ? { weight: scaled(apply(weightGradientOp, one, { x, dy: dSum })) } : {}),
      ...(needs('bias') ? { bias: scaled(apply(sumColumnsOp, {}, { x: dSum })) } : {}),
      ...(needs('residual') ? { residual: scaled(dy) } : {}),
    };
  },
};
