// Group norms, over groups of channels of each sample, and layer norms, over the channels of each column.

import type { Shape } from '../../kernels/device/tensor.ts';
import type { Activation } from '../../kernels/elementwise/activation.ts';
import { groupNorm, groupNormAffine } from '../../kernels/norm/group-norm.ts';
import {
  groupNormGradient,
  groupNormSums,
  normScaleGradient,
} from '../../kernels/norm/group-norm-backward.ts';
import { layerNorm } from '../../kernels/norm/layer-norm.ts';
import { layerNormGradient } from '../../kernels/norm/layer-norm-backward.ts';
import { concatOp, sliceOp } from './channels.ts';
import { gatedAddOp, multiplyOp } from './elementwise.ts';
import {
  check,
  checkShape,
  type Differentiated,
  elements,
  type NoAttributes,
  type Op,
  perElement,
  rowShape,
  type Shapes,
  shown,
} from './op.ts';
import { sumColumnsOp, sumPixelsOp } from './sums.ts';
import { type Constant, rangeOf, type Value } from './value.ts';

/** y = act(GN(x)·(1 + scale) + shift). The rows of the input `embedding` are scale, then shift; without it both are 0. */
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
  inLoad: ({ activation, ...attributes }) => ({
    attributes: { activation },
    rows: { op: groupNormAffineOp as Op<never>, attributes: attributes as never },
  }),
  split({ attributes, inputs: { x, embedding }, constants: { gamma, beta }, ranges, apply }) {
    const { groups } = attributes;
    if (embedding || x!.length !== ranges || groups % ranges !== 0) return undefined;
    return x!.map((part, i) => {
      const each = part.shape[0];
      const own = (rows: Constant | undefined) => rows && rangeOf(rows, i * each, each);
      const constants = { gamma: own(gamma), beta: own(beta) };
      return apply(groupNormOp, { ...attributes, groups: groups / ranges }, { x: part }, constants);
    });
  },
  forward: (capabilities, { inputs, has }, attributes) =>
    groupNorm(capabilities, { ...attributes, x: inputs.x!, scaleShift: has('embedding') }),
  backward(node) {
    const { attributes, inputs, constants, dy, needs, apply } = node;
    const { x, embedding } = inputs;
    const operands = { x, dy, embedding };
    const gradients: Record<string, Value> = {};
    if (needs('x')) gradients.x = apply(groupNormGradientOp, attributes, operands, constants);
    if (!['gamma', 'beta', 'embedding'].some(needs)) return gradients;
    const c = x!.shape[0];
    const sums = apply(groupNormSumsOp, attributes, operands, constants);
    const scale = embedding && apply(sliceOp, { from: 0, count: c }, { x: embedding });
    Object.assign(gradients, constantsOfNorm(node, sums, scale));
    if (!needs('embedding')) return gradients;
    const x0 = apply(normScaleGradientOp, {}, { sums }, constants);
    const x1 = apply(sliceOp, { from: c, count: c }, { x: sums });
    return { ...gradients, embedding: apply(concatOp, {}, { x0, x1 }) };
  },
};

/** The gradient of a group norm with respect to x, plus the input `residual` if there is one. */
export const groupNormGradientOp: Op<GroupNormAttributes> = {
  infer(inputs, { groups }) {
    if (inputs.residual) checkShape('groupNormGradient', 'residual', inputs.x!, inputs.residual);
    return backwardFits('groupNormGradient', inputs, groups);
  },
  constants: ({ x }) => ({ gamma: x![0], beta: x![0] }),
  flop: perElement,
  adds: ({ operand, scale }) => operand === 'residual' && scale === 1,
  forward: (capabilities, { inputs, has }, attributes) =>
    groupNormGradient(capabilities, {
      ...attributes,
      x: inputs.x!,
      scaleShift: has('embedding'),
      residual: has('residual'),
    }),
};

/**
 * Rows A = Σ dz·xhat, then rows B = Σ dz, from which the gradients of gamma, beta, scale and shift follow. xhat is the
 * normalised x, and dz is the gradient at the input of the activation.
 */
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

/** A group norm that is not applied: returns rows a, then rows b, so that the norm is act(a·x + b). */
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

/** y = (LN(x)·gamma + beta)·(1 + scale) + shift, over the channels of each column. All operands but x are optional. */
export interface LayerNormAttributes {
  readonly eps: number;
}

export const layerNormOp: Op<LayerNormAttributes> = {
  infer({ x, scale, shift }) {
    if (scale || shift) {
      checkShape('layerNorm', 'scale', rowShape(x!), scale);
      checkShape('layerNorm', 'shift', rowShape(x!), shift);
    }
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
    const { attributes, inputs, constants, dy, needs, apply } = node;
    const { x, scale } = inputs;
    const gradients: Record<string, Value> = {};
    if (needs('x'))
      gradients.x = apply(layerNormGradientOp, attributes, { x, dy, scale }, { gamma: constants.gamma });
    if (!['gamma', 'beta', 'scale', 'shift'].some(needs)) return gradients;
    const c = x!.shape[0];
    const normed = apply(layerNormOp, attributes, { x });
    const product = apply(multiplyOp, {}, { x1: dy, x2: normed });
    const shift = apply(sumPixelsOp, {}, { x: dy });
    const sums = apply(concatOp, {}, { x0: apply(sumPixelsOp, {}, { x: product }), x1: shift });
    Object.assign(gradients, constantsOfNorm(node, sums, scale));
    if (needs('scale')) gradients.scale = apply(normScaleGradientOp, {}, { sums }, constants);
    if (needs('shift')) gradients.shift = apply(sliceOp, { from: c, count: c }, { x: sums });
    return gradients;
  },
};

/** The gradient of a layer norm with respect to x. */
export const layerNormGradientOp: Op<LayerNormAttributes> = {
  infer({ x, dy, scale }) {
    checkShape('layerNormGradient', 'dy', x!, dy);
    if (scale) checkShape('layerNormGradient', 'scale', rowShape(x!), scale);
    return x!;
  },
  constants: ({ x }) => ({ gamma: x![0] }),
  flop: perElement,
  forward: (capabilities, { inputs, has }, { eps }) =>
    layerNormGradient(capabilities, { x: inputs.x!, eps, gamma: has('gamma'), modulated: has('scale') }),
};

/** y = gamma·A + beta·B, with the sums A and B [2c, n, 1, 1] of a norm: the gradient of its scale rows. */
export const normScaleGradientOp: Op<NoAttributes> = {
  infer: ({ sums }) => [sums![0] / 2, sums![1], 1, 1],
  constants: ({ sums }) => ({ gamma: sums![0] / 2, beta: sums![0] / 2 }),
  flop: perElement,
  forward: (capabilities, { output, has }) =>
    normScaleGradient(capabilities, { y: output, gamma: has('gamma'), beta: has('beta') }),
};

/** Adds the gradients of gamma and beta: Σ_n (1 + scale)·A and Σ_n (1 + scale)·B. */
function constantsOfNorm(
  { inputs, needs, apply }: Pick<Differentiated<never>, 'inputs' | 'needs' | 'apply'>,
  sums: Value,
  scale: Value | undefined,
): Record<string, Value> {
  const c = inputs.x!.shape[0];
  const total = (from: number): Value => {
    const rows = apply(sliceOp, { from, count: c }, { x: sums });
    const x = scale ? apply(gatedAddOp, {}, { x1: rows, x2: rows, gate: scale }) : rows;
    return apply(sumColumnsOp, {}, { x });
  };
  return { ...(needs('gamma') ? { gamma: total(0) } : {}), ...(needs('beta') ? { beta: total(c) } : {}) };
}

function backwardFits(op: string, { x, dy, embedding }: Shapes, groups: number): Shape {
  groupsFit(op, x!, embedding, groups);
  checkShape(op, 'dy', x!, dy);
  return x!;
}

function groupsFit(op: string, x: Shape, embedding: Shape | undefined, groups: number): void {
  const [c, n] = x;
  check(c % groups === 0, () => `${op}: expected a multiple of ${groups} channels, got x ${shown(x)}`);
  if (embedding) checkShape(op, 'embedding', [2 * c, n, 1, 1], embedding);
}
