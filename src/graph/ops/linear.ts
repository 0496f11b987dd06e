// Dense layers over channels.

import type { Activation } from '../../kernels/activation.ts';
import { linear } from '../../kernels/linear.ts';
import type { Shape } from '../../kernels/tensor.ts';
import { type Op, residualFits } from './op.ts';

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
  forward: (capabilities, { inputs, has }, attributes, weights) =>
    linear(capabilities, {
      ...attributes,
      x: inputs.x!,
      bias: has('bias'),
      residual: has('residual'),
      weights,
    }),
};
