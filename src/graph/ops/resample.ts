// Upsampling, average pooling and padding.

import { averagePool2x2, upsampleNearest } from '../../kernels/elementwise/pixel-resize.ts';
import {
  averagePoolGradient,
  pad,
  upsampleGradient,
} from '../../kernels/elementwise/pixel-resize-backward.ts';
import { check, copies, type NoAttributes, type Op, perElement, shown } from './op.ts';

type Size = readonly [height: number, width: number];

/** Nearest-neighbour upsampling to `size`, by default to twice the size. */
export const upsampleOp: Op<{ readonly size?: Size }> = {
  infer: ({ x }, { size }) => [x![0], x![1], ...(size ?? ([2 * x![2], 2 * x![3]] as const))],
  flop: copies,
  cheap: true,
  inLoad: ({ size }) => (size ? undefined : { attributes: { upsample: 2 } }),
  forward: (capabilities, { inputs, output }) =>
    upsampleNearest(capabilities, { x: inputs.x!, size: [output[2], output[3]] }),
  backward: ({ inputs: { x }, dy, apply }) => ({
    x: apply(upsampleGradientOp, { size: [x!.shape[2], x!.shape[3]] }, { dy }),
  }),
};

/** y[i, j] = the sum of dy over the pixels that are copies of pixel (i, j). `size` is the size before upsampling. */
export const upsampleGradientOp: Op<{ readonly size: Size }> = {
  infer: ({ dy }, { size }) => [dy![0], dy![1], ...size],
  flop: perElement,
  forward: (capabilities, { inputs }, { size }) => upsampleGradient(capabilities, { dy: inputs.dy!, size }),
  backward: ({ inputs, dy, apply }) => {
    const [, , height, width] = inputs.dy!.shape;
    return { dy: apply(upsampleOp, { size: [height, width] }, { x: dy }) };
  },
};

/** The mean of each block of 2x2 pixels. The last row or column of an odd size is left out. */
export const averagePoolOp: Op<NoAttributes> = {
  infer: ({ x }) => [x![0], x![1], Math.floor(x![2] / 2), Math.floor(x![3] / 2)],
  flop: perElement,
  cheap: true,
  forward: (capabilities, { inputs }) => averagePool2x2(capabilities, { x: inputs.x! }),
  backward: ({ inputs: { x }, dy, apply }) => ({
    x: apply(averagePoolGradientOp, { size: [x!.shape[2], x!.shape[3]] }, { dy }),
  }),
};

/**
 * A quarter of dy at each pixel of its block, and zero in a last row or column that pooling left out. `size` is the size
 * before pooling.
 */
export const averagePoolGradientOp: Op<{ readonly size: Size }> = {
  infer({ dy }, { size }) {
    check(
      Math.floor(size[0] / 2) === dy![2] && Math.floor(size[1] / 2) === dy![3],
      () =>
        `averagePoolGradient: expected dy of ${Math.floor(size[0] / 2)}x${Math.floor(size[1] / 2)}, half of ${size[0]}x${size[1]}, got ${shown(dy)}`,
    );
    return [dy![0], dy![1], ...size];
  },
  flop: perElement,
  forward: (capabilities, { inputs }, { size }) =>
    averagePoolGradient(capabilities, { dy: inputs.dy!, size }),
  backward: ({ dy, apply }) => ({ dy: apply(averagePoolOp, {}, { x: dy }) }),
};

/**
 * y[i·step + top, j·step + left] = x[i, j] in an image of `size`, zeros elsewhere. Pixels of x that fall outside are
 * dropped.
 */
export interface PadAttributes {
  readonly offset: readonly [top: number, left: number];
  readonly step?: number;
  readonly size: Size;
}

export const padOp: Op<PadAttributes> = {
  infer: ({ x }, { size }) => [x![0], x![1], ...size],
  flop: copies,
  forward: (capabilities, { inputs }, attributes) => pad(capabilities, { x: inputs.x!, ...attributes }),
};
