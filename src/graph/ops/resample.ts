// Resolution, up and down.

import { averagePool2x2, upsampleNearest } from '../../kernels/resample.ts';
import { averagePoolGradient, pad, upsampleGradient } from '../../kernels/resample-backward.ts';
import { copies, none, type Op, perElement, text, want } from './op.ts';

type Size = readonly [height: number, width: number];

/** Nearest, to twice the size or to the one given. */
export interface UpsampleAttributes {
  readonly size?: Size;
}

export const upsampleOp: Op<UpsampleAttributes> = {
  infer: ({ x }, { size }) => [x![0], x![1], ...(size ?? ([2 * x![2], 2 * x![3]] as const))],
  constants: none,
  flop: copies,
  cheap: true,
  forward: (capabilities, { inputs, output }) =>
    upsampleNearest(capabilities, { x: inputs.x!, size: [output[2], output[3]] }),
  backward: ({ inputs: { x }, dy, apply }) => ({
    x: apply(upsampleGradientOp, { size: [x!.shape[2], x!.shape[3]] }, { dy }),
  }),
};

/** y[i, j] = the sum of dy over the pixels that upsampling made of (i, j); `size` is that of what was upsampled. */
export interface UpsampleGradientAttributes {
  readonly size: Size;
}

export const upsampleGradientOp: Op<UpsampleGradientAttributes> = {
  infer: ({ dy }, { size }) => [dy![0], dy![1], ...size],
  constants: none,
  flop: perElement,
  forward: (capabilities, { inputs }, { size }) => upsampleGradient(capabilities, { dy: inputs.dy!, size }),
  backward: ({ inputs, dy, apply }) => {
    const [, , height, width] = inputs.dy!.shape;
    return { dy: apply(upsampleOp, { size: [height, width] }, { x: dy }) };
  },
};

export type AveragePoolAttributes = Record<never, never>;

export const averagePoolOp: Op<AveragePoolAttributes> = {
  infer: ({ x }) => [x![0], x![1], Math.floor(x![2] / 2), Math.floor(x![3] / 2)],
  constants: none,
  flop: perElement,
  cheap: true,
  forward: (capabilities, { inputs }) => averagePool2x2(capabilities, { x: inputs.x! }),
  backward: ({ inputs: { x }, dy, apply }) => ({
    x: apply(averagePoolGradientOp, { size: [x!.shape[2], x!.shape[3]] }, { dy }),
  }),
};

/** A quarter of dy at each pixel of its block, zero in a row or column that pooling cut; `size` is that of what was pooled. */
export interface AveragePoolGradientAttributes {
  readonly size: Size;
}

export const averagePoolGradientOp: Op<AveragePoolGradientAttributes> = {
  infer({ dy }, { size }) {
    want(
      Math.floor(size[0] / 2) === dy![2] && Math.floor(size[1] / 2) === dy![3],
      () => `averagePoolGradient: dy ${text(dy)} is not the half of ${size[0]}x${size[1]}`,
    );
    return [dy![0], dy![1], ...size];
  },
  constants: none,
  flop: perElement,
  forward: (capabilities, { inputs }, { size }) =>
    averagePoolGradient(capabilities, { dy: inputs.dy!, size }),
  backward: ({ dy, apply }) => ({ dy: apply(averagePoolOp, {}, { x: dy }) }),
};

/**
 * y[i·step + top, j·step + left] = x[i, j] in an image of `size`: zeros where x does not reach, cut where it reaches
 * beyond.
 */
export interface PadAttributes {
  readonly offset: readonly [top: number, left: number];
  readonly step?: number;
  readonly size: Size;
}

export const padOp: Op<PadAttributes> = {
  infer: ({ x }, { size }) => [x![0], x![1], ...size],
  constants: none,
  flop: copies,
  forward: (capabilities, { inputs }, attributes) => pad(capabilities, { x: inputs.x!, ...attributes }),
};
