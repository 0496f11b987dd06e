// Norms: over groups of channels of a sample, over the channels of a column.

import type { Activation } from '../../kernels/activation.ts';
import { groupNorm, groupNormAffine } from '../../kernels/groupnorm.ts';
import { groupNormGradient, groupNormSums, normScaleGradient } from '../../kernels/groupnorm-backward.ts';
import { layerNorm } from '../../kernels/layernorm.ts';
import { layerNormGradient } from '../../kernels/layernorm-backward.ts';
import type { Shape } from '../../kernels/tensor.ts';
import type { Value } from '../value.ts';
import { concatOp, sliceOp } from './channels.ts';
import { gatedAddOp, multiplyOp } from './elementwise.ts';
import {
  type Differentiated,
  elements,
  isRow,
  type Op,
  perElement,
  residualFits,
  type Shapes,
  same,
  text,
  want,
} from './op.ts';
import { sumColumnsOp, sumPixelsOp } from './sums.ts';

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
  flop: perElement,
  cheap: true,
  forward: (capabilities, { inputs, has }, attributes) =>
    groupNorm(capabilities, { ...attributes, x: inputs.x!, scaleShift: has('embedding') }),
  backward(node) {
    const { attributes, inputs, constants, dy, wants, apply } = node;
    const { x, embedding } = inputs;
    const operands = { x, dy, embedding };
    const gradients: Record<string, Value> = {};
    if (wants('x')) gradients.x = apply(groupNormGradientOp, attributes, operands, constants);
    if (!['gamma', 'beta', 'embedding'].some(wants)) return gradients;
    const c = x!.shape[0];
    const sums = apply(groupNormSumsOp, attributes, operands, constants);
    const scale = embedding && apply(sliceOp, { from: 0, count: c }, { x: embedding });
    Object.assign(gradients, constantsOfNorm(node, sums, scale));
    if (wants('embedding'))
      gradients.embedding = apply(
        concatOp,
        {},
        {
          x0: apply(normScaleGradientOp, {}, { sums }, constants),
          x1: apply(sliceOp, { from: c, count: c }, { x: sums }),
        },
      );
    return gradients;
  },
};

/** The gradient of a group norm with regard to x, plus a `residual` where given. */
export const groupNormGradientOp: Op<GroupNormAttributes> = {
  infer(inputs, { groups }) {
    residualFits('groupNormGradient', inputs.x!, inputs.residual);
    return backwardFits('groupNormGradient', inputs, groups);
  },
  constants: ({ x }) => ({ gamma: x![0], beta: x![0] }),
  flop: perElement,
  forward: (capabilities, { inputs, has }, attributes) =>
    groupNormGradient(capabilities, {
      ...attributes,
      x: inputs.x!,
      scaleShift: has('embedding'),
      residual: has('residual'),
    }),
};

/** Rows A = Σ dz·xhat, then B = Σ dz, of which the gradients of gamma, beta, scale and shift are made. */
export const groupNormSumsOp: Op<GroupNormAttributes> = {
  infer(inputs, { groups }) {
    const [c, n] = backwardFits('groupNormSums', inputs, groups);
    return [2 * c, n, 1, 1];
  },
  constants: ({ x }) => ({ gamma: x![0], beta: x![0] }),
  flop: ({ inputs: { x } }) => elements(x!),
  forward: (capabilities, { inputs, has }, attributes) =>
    groupNormSums(capabilities, { ...attributes, x: inputs.x!, scaleShift: has('embedding') }),
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
  flop: perElement,
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
  flop: perElement,
  cheap: true,
  forward: (capabilities, { inputs, has }, { eps }) =>
    layerNorm(capabilities, {
      x: inputs.x!,
      eps,
      gamma: has('gamma'),
      beta: has('beta'),
      modulated: has('scale'),
    }),
  backward(node) {
    const { attributes, inputs, constants, dy, wants, apply } = node;
    const { x, scale } = inputs;
    const gradients: Record<string, Value> = {};
    if (wants('x'))
      gradients.x = apply(layerNormGradientOp, attributes, { x, dy, scale }, { gamma: constants.gamma });
    if (!['gamma', 'beta', 'scale', 'shift'].some(wants)) return gradients;
    const c = x!.shape[0];
    const normed = apply(layerNormOp, attributes, { x });
    const product = apply(multiplyOp, {}, { x1: dy, x2: normed });
    const shift = apply(sumPixelsOp, {}, { x: dy });
    const sums = apply(concatOp, {}, { x0: apply(sumPixelsOp, {}, { x: product }), x1: shift });
    Object.assign(gradients, constantsOfNorm(node, sums, scale));
    if (wants('scale')) gradients.scale = apply(normScaleGradientOp, {}, { sums }, constants);
    if (wants('shift')) gradients.shift = apply(sliceOp, { from: c, count: c }, { x: sums });
    return gradients;
  },
};

/** The gradient of a layer norm with regard to x. */
export const layerNormGradientOp: Op<LayerNormAttributes> = {
  infer({ x, dy, scale }) {
    want(
      same(x!, dy!) && (!scale || isRow(x!, scale)),
      () => `layerNormGradient: x is ${text(x)}, dy ${text(dy)}, scale ${text(scale)}`,
    );
    return x!;
  },
  constants: ({ x }) => ({ gamma: x![0] }),
  flop: perElement,
  forward: (capabilities, { inputs, has }, { eps }) =>
    layerNormGradient(capabilities, { x: inputs.x!, eps, gamma: has('gamma'), modulated: has('scale') }),
};

/** y = gamma·A + beta·B of a norm's sums [2c, n, 1, 1]: the gradient of the rows that scale it. */
export type NormScaleGradientAttributes = Record<never, never>;

export const normScaleGradientOp: Op<NormScaleGradientAttributes> = {
  infer: ({ sums }) => [sums![0] / 2, sums![1], 1, 1],
  constants: ({ sums }) => ({ gamma: sums![0] / 2, beta: sums![0] / 2 }),
  flop: perElement,
  forward: (capabilities, { output, has }) =>
    normScaleGradient(capabilities, { y: output, gamma: has('gamma'), beta: has('beta') }),
};

/** The gradients of gamma and beta: Σ_n (1 + scale)·A and Σ_n (1 + scale)·B. */
function constantsOfNorm(
  { inputs, wants, apply }: Pick<Differentiated<never>, 'inputs' | 'wants' | 'apply'>,
  sums: Value,
  scale: Value | undefined,
): Record<string, Value> {
  const c = inputs.x!.shape[0];
  const total = (from: number): Value => {
    const rows = apply(sliceOp, { from, count: c }, { x: sums });
    return apply(
      sumColumnsOp,
      {},
      {
        x: scale ? apply(gatedAddOp, {}, { x1: rows, x2: rows, gate: scale }) : rows,
      },
    );
  };
  return { ...(wants('gamma') ? { gamma: total(0) } : {}), ...(wants('beta') ? { beta: total(c) } : {}) };
}

function backwardFits(op: string, { x, dy, embedding }: Shapes, groups: number): Shape {
  groupsFit(op, x!, embedding, groups);
  want(same(x!, dy!), () => `${op}: x is ${text(x)}, dy is ${text(dy)}`);
  return x!;
}

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
