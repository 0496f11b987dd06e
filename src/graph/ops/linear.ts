// Dense layers over channels.

import type { Activation } from '../../kernels/activation.ts';
import { linear } from '../../kernels/linear.ts';
import type { Shape } from '../../kernels/tensor.ts';
import type { Value } from '../value.ts';
import { transposedWeight, weightGradientOp } from './conv2d.ts';
import { activationGradientOp, scaledOp } from './elementwise.ts';
import { elements, type Op, residualFits } from './op.ts';
import { sumColumnsOp } from './sums.ts';

/** y = act(weight·x + bias)·… over channels, a column each; also the 1x1 convolution. */
export interface LinearAttributes {
  readonly outChannels: number;
  readonly activation?: Activation;
  readonly scale?: number;
}

export const linearOp: Op<LinearAttributes> = {
  infer({ x, residual }, { outChannels }) {
    const y: Shape = [outChannels, x![1], x![2], x![3]];
    residualFits('linear', y, residual);
    return y;
  },
  constants: ({ x }, { outChannels }) => ({ weight: outChannels * x![0], bias: outChannels }),
  flop: ({ inputs: { x }, output }) => 2 * elements(output) * x![0],
  forward: (capabilities, { inputs, has }, attributes, weights) =>
    linear(capabilities, {
      ...attributes,
      x: inputs.x!,
      bias: has('bias'),
      residual: has('residual'),
      weights,
    }),
  backward({ attributes, inputs: { x }, constants: { weight, bias }, dy, wants, apply }) {
    const { outChannels, activation = 'none', scale: factor = 1 } = attributes;
    const scaled = (value: Value) => (factor === 1 ? value : apply(scaledOp, { factor }, { x: value }));
    // What the activation was given is made again rather than kept.
    const dSum =
      activation === 'none' || !(wants('x') || wants('weight') || wants('bias'))
        ? dy
        : apply(
            activationGradientOp,
            { activation },
            { x: apply(linearOp, { outChannels }, { x }, { weight, bias }), dy },
          );
    const one = { kernel: [1, 1], stride: 1, padding: [0, 0, 0, 0] } as const;
    return {
      ...(wants('x')
        ? {
            x: apply(
              linearOp,
              { outChannels: x!.shape[0], scale: factor },
              { x: dSum },
              { weight: transposedWeight(weight!, outChannels, x!.shape[0], [1, 1]) },
            ),
          }
        : {}),
      ...(wants('weight') ? { weight: scaled(apply(weightGradientOp, one, { x, dy: dSum })) } : {}),
      ...(wants('bias') ? { bias: scaled(apply(sumColumnsOp, {}, { x: dSum })) } : {}),
      ...(wants('residual') ? { residual: scaled(dy) } : {}),
    };
  },
};
