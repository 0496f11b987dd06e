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
import { checkShape, none, type Op, perElement, rowsOf } from './op.ts';
import { sumSamplesOp } from './samples.ts';
import { sumPixelsOp } from './sums.ts';

export interface ActivationAttributes {
  readonly activation: Activation;
}

export const activationOp: Op<ActivationAttributes> = {
  infer: ({ x }) => x!,
  constants: none,
  flop: perElement,
  cheap: true,
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
  constants: none,
  flop: perElement,
  forward: (capabilities, { inputs }, { activation }) =>
    activationGradient(capabilities, { x: inputs.x!, activation }),
};

/** y = x1·gelu(x2). */
export type GegluAttributes = Record<never, never>;

export const gegluOp: Op<GegluAttributes> = {
  infer({ x1, x2 }) {
    checkShape('geglu', 'x2', x1!, x2);
    return x1!;
  },
  constants: none,
  flop: perElement,
  cheap: true,
  forward: (capabilities, { inputs }) => geglu(capabilities, { x: inputs.x1! }),
  backward: ({ inputs: { x1, x2 }, dy, needs, apply }) => ({
    ...(needs('x1') ? { x1: apply(gegluOp, {}, { x1: dy, x2 }) } : {}),
    ...(needs('x2')
      ? {
          x2: apply(
            activationGradientOp,
            { activation: 'gelu' },
            { x: x2, dy: apply(multiplyOp, {}, { x1: dy, x2: x1 }) },
          ),
        }
      : {}),
  }),
};

/** y = (x1 + x2)·scale. */
export interface AddAttributes {
  readonly scale?: number;
}

export const addOp: Op<AddAttributes> = {
  infer({ x1, x2 }) {
    checkShape('add', 'x2', x1!, x2);
    return x1!;
  },
  constants: none,
  flop: perElement,
  cheap: true,
  addition: ({ scale = 1 }) => ({ operand: 'residual', scale, into: ['x1', 'x2'] }),
  forward: (capabilities, { inputs }, { scale = 1 }) => add(capabilities, { x: inputs.x1!, scale }),
  backward({ attributes: { scale: factor = 1 }, dy, apply }) {
    const gradient = factor === 1 ? dy : apply(scaledOp, { factor }, { x: dy });
    return { x1: gradient, x2: gradient };
  },
};

/** y = factor·x. */
export interface ScaledAttributes {
  readonly factor: number;
}

export const scaledOp: Op<ScaledAttributes> = {
  infer: ({ x }) => x!,
  constants: none,
  flop: perElement,
  forward: (capabilities, { inputs }, { factor }) => scaled(capabilities, { x: inputs.x!, factor }),
  backward: ({ attributes, dy, apply }) => ({ x: apply(scaledOp, attributes, { x: dy }) }),
};

/** y = x1·x2. */
export type MultiplyAttributes = Record<never, never>;

export const multiplyOp: Op<MultiplyAttributes> = {
  infer({ x1, x2 }) {
    checkShape('multiply', 'x2', x1!, x2);
    return x1!;
  },
  constants: none,
  flop: perElement,
  forward: (capabilities, { inputs }) => multiply(capabilities, { x: inputs.x1! }),
  backward: ({ inputs: { x1, x2 }, dy, needs, apply }) => ({
    ...(needs('x1') ? { x1: apply(multiplyOp, {}, { x1: dy, x2 }) } : {}),
    ...(needs('x2') ? { x2: apply(multiplyOp, {}, { x1: dy, x2: x1 }) } : {}),
  }),
};

/** y[c, n, p] = x[c, n, p] + embedding[c, n]. */
export type AddRowsAttributes = Record<never, never>;

export const addRowsOp: Op<AddRowsAttributes> = {
  infer({ x, embedding }) {
    checkShape('addRows', 'embedding', rowsOf(x!), embedding);
    return x!;
  },
  constants: none,
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
export type GatedAddAttributes = Record<never, never>;

export const gatedAddOp: Op<GatedAddAttributes> = {
  infer({ x1, x2, gate }) {
    checkShape('gatedAdd', 'x2', x1!, x2);
    checkShape('gatedAdd', 'gate', rowsOf(x1!), gate);
    return x1!;
  },
  constants: none,
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
export type ScaleRowsAttributes = Record<never, never>;

export const scaleRowsOp: Op<ScaleRowsAttributes> = {
  infer({ x, gate }) {
    checkShape('scaleRows', 'gate', rowsOf(x!), gate);
    return x!;
  },
  constants: none,
  flop: perElement,
  forward: (capabilities, { inputs }) => scaleRows(capabilities, { x: inputs.x! }),
};

/** y[c, n, p] = x[c, n, p] + image[c, p], where the image is a constant. */
export type AddImageAttributes = Record<never, never>;

export const addImageOp: Op<AddImageAttributes> = {
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
