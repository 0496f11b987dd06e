// Norms: over groups of channels of a sample, over the channels of a column.

import type { Activation } from '../../kernels/activation.ts';
import { groupNorm, groupNormAffine } from '../../kernels/groupnorm.ts';
import { layerNorm } from '../../kernels/layernorm.ts';
import type { Shape } from '../../kernels/tensor.ts';
import { isRow, type Op, text, want } from './op.ts';

/** y = act(GN(x)·(1 + scale) + shift); scale and shift are the rows of `embedding`, where given. */
export interface GroupNormAttributes {
  readonly groups: number;
  readonly eps: number;
  readonly activation: Activation;
}

export const groupNormOp: Op<GroupNormAttributes> = {
  infer({ x, embedding }, { groups }) {
    groupsFit('groupNorm', x!, embedding, groups);
    return x!;
  },
  constants: ({ x }) => ({ gamma: x![0], beta: x![0] }),
  forward: (capabilities, { inputs, has }, attributes) =>
    groupNorm(capabilities, { ...attributes, x: inputs.x!, scaleShift: has('embedding') }),
};

/** The same without applying it: rows a, then b, of act(a·x + b). */
export interface GroupNormAffineAttributes {
  readonly groups: number;
  readonly eps: number;
}

export const groupNormAffineOp: Op<GroupNormAffineAttributes> = {
  infer({ x, embedding }, { groups }) {
    groupsFit('groupNormAffine', x!, embedding, groups);
    return [2 * x![0], x![1], 1, 1];
  },
  constants: ({ x }) => ({ gamma: x![0], beta: x![0] }),
  forward: (capabilities, { inputs, has }, attributes) =>
    groupNormAffine(capabilities, { ...attributes, x: inputs.x!, scaleShift: has('embedding') }),
};

/** y = (LN(x)·gamma + beta)·(1 + scale) + shift over the channels of each column; constants and rows where given. */
export interface LayerNormAttributes {
  readonly eps: number;
}

export const layerNormOp: Op<LayerNormAttributes> = {
  infer({ x, scale, shift }) {
    want(
      (!scale && !shift) ||
        (scale !== undefined && shift !== undefined && isRow(x!, scale) && isRow(x!, shift)),
      () => `layerNorm: scale is ${text(scale)}, shift is ${text(shift)}, x is ${text(x)}`,
    );
    return x!;
  },
  constants: ({ x }) => ({ gamma: x![0], beta: x![0] }),
  forward: (capabilities, { inputs, has }, { eps }) =>
    layerNorm(capabilities, {
      x: inputs.x!,
      eps,
      gamma: has('gamma'),
      beta: has('beta'),
      modulated: has('scale'),
    }),
};

function groupsFit(op: string, x: Shape, embedding: Shape | undefined, groups: number): void {
  want(
    x[0] % groups === 0,
    () => `${op}: ${x[0]} channels do not split into ${groups} groups (x ${text(x)})`,
  );
  want(
    !embedding || isRow([2 * x[0], x[1], 1, 1], embedding),
    () => `${op}: scale and shift are ${text(embedding)}, x is ${text(x)}`,
  );
}
