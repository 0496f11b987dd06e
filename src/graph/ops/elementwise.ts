// What happens element by element, or row by row.

import type { Activation } from '../../kernels/activation.ts';
import { activate, add, addImage, addRows, gatedAdd, geglu } from '../../kernels/elementwise.ts';
import { isRow, none, type Op, same, text, want } from './op.ts';

export interface ActivationAttributes {
  readonly activation: Activation;
}

export const activationOp: Op<ActivationAttributes> = {
  infer: ({ x }) => x!,
  constants: none,
  forward: (capabilities, { inputs }, { activation }) => activate(capabilities, { x: inputs.x!, activation }),
};

/** y = x1·gelu(x2). */
export type GegluAttributes = Record<never, never>;

export const gegluOp: Op<GegluAttributes> = {
  infer({ x1, x2 }) {
    want(same(x1!, x2!), () => `geglu: x1 is ${text(x1)}, x2 is ${text(x2)}`);
    return x1!;
  },
  constants: none,
  forward: (capabilities, { inputs }) => geglu(capabilities, { x: inputs.x1! }),
};

/** y = (x1 + x2)·scale. */
export interface AddAttributes {
  readonly scale?: number;
}

export const addOp: Op<AddAttributes> = {
  infer({ x1, x2 }) {
    want(same(x1!, x2!), () => `add: x1 is ${text(x1)}, x2 is ${text(x2)}`);
    return x1!;
  },
  constants: none,
  forward: (capabilities, { inputs }, { scale = 1 }) => add(capabilities, { x: inputs.x1!, scale }),
};

/** y[c, n, p] = x[c, n, p] + embedding[c, n]. */
export type AddRowsAttributes = Record<never, never>;

export const addRowsOp: Op<AddRowsAttributes> = {
  infer({ x, embedding }) {
    want(isRow(x!, embedding!), () => `addRows: x is ${text(x)}, the embedding is ${text(embedding)}`);
    return x!;
  },
  constants: none,
  forward: (capabilities, { inputs }) => addRows(capabilities, { x: inputs.x! }),
};

/** y[c, n, p] = x1[c, n, p] + gate[c, n]·x2[c, n, p]. */
export type GatedAddAttributes = Record<never, never>;

export const gatedAddOp: Op<GatedAddAttributes> = {
  infer({ x1, x2, gate }) {
    want(
      same(x1!, x2!) && isRow(x1!, gate!),
      () => `gatedAdd: x1 is ${text(x1)}, x2 is ${text(x2)}, the gate is ${text(gate)}`,
    );
    return x1!;
  },
  constants: none,
  forward: (capabilities, { inputs }) => gatedAdd(capabilities, { x: inputs.x1! }),
};

/** y[c, n, p] = x[c, n, p] + image[c, p], with a constant image. */
export type AddImageAttributes = Record<never, never>;

export const addImageOp: Op<AddImageAttributes> = {
  infer: ({ x }) => x!,
  constants: ({ x }) => ({ image: x![0] * x![2] * x![3] }),
  forward: (capabilities, { inputs }) => addImage(capabilities, { x: inputs.x! }),
};
