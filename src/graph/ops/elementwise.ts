// Arithmetic element by element, or with one number per channel and sample (a row).

import type { Activation } from '../../kernels/elementwise/activation.ts';
import {
  activate,
  activationGradient,
  add,
  addImage,
  addRows,
  gatedAdd,
  geglu,
  multiply,
  scaled,
  scaleRows,
} from '../../kernels/elementwise/elementwise.ts';
import { checkShape, type NoAttributes, type Op, perElement, rowShape, splitByChannels } from './op.ts';
import { sumSamplesOp } from './samples.ts';
import { sumPixelsOp } from './sums.ts';

export interface ActivationAttributes {
  readonly activation: Activation;
}

export const activationOp: Op<ActivationAttributes> = {
  infer: ({ x }) => x!,
  flop: perElement,
  cheap: true,
  split: splitByChannels(() => activationOp),
  forward: (capabilities, { inputs }, { activation }) => activate(capabilities, { x: inputs.x!, activation }),
  backward: ({ attributes, inputs: { x }, dy, apply }) => ({
    x: apply(activationGradientOp, attributes, { x, dy }),
  }),
};

/** y = dy·act'(x). */
export const activationGradientOp: Op<ActivationAttributes> = {
  infer({ x, dy }) {
    checkShape('activationGradient', 'dy', x!, dy);
    return x!;
  },
  flop: perElement,
  forward: (capabilities, { inputs }, { activation }) =>
    activationGradient(capabilities, { x: inputs.x!, activation }),
};

/** y = x1·gelu(x2). */
export const gegluOp: Op<NoAttributes> = {
  infer({ x1, x2 }) {
    checkShape('geglu', 'x2', x1!, x2);
    return x1!;
  },
  flop: perElement,
  cheap: true,
  forward: (capabilities, { inputs }) => geglu(capabilities, { x: inputs.x1! }),
  backward({ inputs: { x1, x2 }, dy, needs, apply }) {
    const dx1 = needs('x1') ? { x1: apply(gegluOp, {}, { x1: dy, x2 }) } : {};
    if (!needs('x2')) return dx1;
    const dGelu = apply(multiplyOp, {}, { x1: dy, x2: x1 });
    return { ...dx1, x2: apply(activationGradientOp, { activation: 'gelu' }, { x: x2, dy: dGelu }) };
  },
};

/** y = (x1 + x2)·scale. */
export const addOp: Op<{ readonly scale?: number }> = {
  infer({ x1, x2 }) {
    checkShape('add', 'x2', x1!, x2);
    return x1!;
  },
  flop: perElement,
  cheap: true,
  addition: ({ scale = 1 }) => ({ operand: 'residual', scale, into: ['x1', 'x2'] }),
  split: splitByChannels(() => addOp),
  forward: (capabilities, { inputs }, { scale = 1 }) => add(capabilities, { x: inputs.x1!, scale }),
  backward({ attributes: { scale: factor = 1 }, dy, apply }) {
    const gradient = factor === 1 ? dy : apply(scaledOp, { factor }, { x: dy });
    return { x1: gradient, x2: gradient };
  },
};

/** y = factor·x. */
export const scaledOp: Op<{ readonly factor: number }> = {
  infer: ({ x }) => x!,
  flop: perElement,
  forward: (capabilities, { inputs }, { factor }) => scaled(capabilities, { x: inputs.x!, factor }),
  backward: ({ attributes, dy, apply }) => ({ x: apply(scaledOp, attributes, { x: dy }) }),
};

/** y = x1·x2. */
export const multiplyOp: Op<NoAttributes> = {
  infer({ x1, x2 }) {
    checkShape('multiply', 'x2', x1!, x2);
    return x1!;
  },
  flop: perElement,
  forward: (capabilities, { inputs }) => multiply(capabilities, { x: inputs.x1! }),
  backward: ({ inputs: { x1, x2 }, dy, needs, apply }) => ({
    ...(needs('x1') ? { x1: apply(multiplyOp, {}, { x1: dy, x2 }) } : {}),
    ...(needs('x2') ? { x2: apply(multiplyOp, {}, { x1: dy, x2: x1 }) } : {}),
  }),
};

/** y[c, n, p] = x[c, n, p] + embedding[c, n]. */
export const addRowsOp: Op<NoAttributes> = {
  infer({ x, embedding }) {
    checkShape('addRows', 'embedding', rowShape(x!), embedding);
    return x!;
  },
  flop: perElement,
  cheap: true,
  addition: () => ({ operand: 'embedding', scale: 1, into: ['x'] }),
  forward: (capabilities, { inputs }) => addRows(capabilities, { x: inputs.x! }),
  backward: ({ dy, needs, apply }) => ({
    x: dy,
    ...(needs('embedding') ? { embedding: apply(sumPixelsOp, {}, { x: dy }) } : {}),
  }),
};

/** y[c, n, p] = x1[c, n, p] + gate[c, n]·x2[c, n, p]. */
export const gatedAddOp: Op<NoAttributes> = {
  infer({ x1, x2, gate }) {
    checkShape('gatedAdd', 'x2', x1!, x2);
    checkShape('gatedAdd', 'gate', rowShape(x1!), gate);
    return x1!;
  },
  flop: perElement,
  cheap: true,
  forward: (capabilities, { inputs }) => gatedAdd(capabilities, { x: inputs.x1! }),
  backward: ({ inputs: { x2, gate }, dy, needs, apply }) => ({
    x1: dy,
    ...(needs('x2') ? { x2: apply(scaleRowsOp, {}, { x: dy, gate }) } : {}),
    ...(needs('gate') ? { gate: apply(sumPixelsOp, {}, { x: apply(multiplyOp, {}, { x1: dy, x2 }) }) } : {}),
  }),
};

/** y[c, n, p] = x[c, n, p]·gate[c, n]. */
export const scaleRowsOp: Op<NoAttributes> = {
  infer({ x, gate }) {
    checkShape('scaleRows', 'gate', rowShape(x!), gate);
    return x!;
  },
  flop: perElement,
  forward: (capabilities, { inputs }) => scaleRows(capabilities, { x: inputs.x! }),
};

/** y[c, n, p] = x[c, n, p] + image[c, p], where the image is a constant. */
export const addImageOp: Op<NoAttributes> = {
  infer: ({ x }) => x!,
  constants: ({ x }) => ({ image: x![0] * x![2] * x![3] }),
  flop: perElement,
  cheap: true,
  forward: (capabilities, { inputs }) => addImage(capabilities, { x: inputs.x! }),
  backward: ({ dy, needs, apply }) => ({
    x: dy,
    ...(needs('image') ? { image: apply(sumSamplesOp, {}, { x: dy }) } : {}),
  }),
};
