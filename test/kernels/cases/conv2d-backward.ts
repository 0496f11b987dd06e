// Convolutions whose gradients are checked.

import type { Conv2dOptions } from '../../../src/kernels/conv2d/conv2d.ts';

export interface BackwardCase {
  readonly name: string;
  readonly options: Conv2dOptions;
}

type Geometry = Pick<Conv2dOptions, 'kernel' | 'stride' | 'padding'>;

const SAME: Geometry = { kernel: [3, 3], padding: [1, 1, 1, 1] };
const DOWN: Geometry = { ...SAME, stride: 2 };
/** The padding of the encoders of autoencoders: below and to the right only. */
const DOWN_AFTER: Geometry = { kernel: [3, 3], stride: 2, padding: [0, 0, 1, 1] };
const ONE: Geometry = { kernel: [1, 1], padding: [0, 0, 0, 0] };

const layer = (
  c: number,
  oc: number,
  n: number,
  h: number,
  w = h,
  geometry = SAME,
  scale?: number,
): BackwardCase => {
  const { kernel, stride = 1, padding } = geometry;
  return {
    name: `${c}->${oc} ${h}x${w} n=${n} ${kernel.join('x')}/${stride}, padding ${padding}${scale ? `, scale ${scale}` : ''}`,
    options: {
      x: [c, n, h, w],
      outChannels: oc,
      bias: true,
      weights: 'f32',
      ...geometry,
      ...(scale ? { scale } : {}),
    },
  };
};

export const cases: readonly BackwardCase[] = [
  layer(1, 1, 1, 1),
  layer(3, 5, 3, 5, 3, SAME, 0.7),
  layer(9, 17, 2, 6, 9),
  layer(64, 33, 3, 7),
  layer(1, 16, 3, 28),
  layer(16, 1, 1, 28),
  layer(10, 22, 3, 28, 28, DOWN, 1.3),
  layer(10, 22, 1, 7, 7, DOWN),
  layer(6, 10, 3, 9, 8, DOWN_AFTER),
  layer(16, 24, 1, 28, 28, DOWN_AFTER),
  layer(12, 20, 3, 7, 7, ONE),
  layer(12, 20, 2, 7, 7, { ...ONE, stride: 2 }),
  layer(3, 8, 2, 16, 16, { kernel: [4, 4], stride: 4, padding: [0, 0, 0, 0] }),
  layer(3, 8, 1, 11, 13, { kernel: [7, 5], stride: 3, padding: [3, 2, 2, 1] }),
  layer(5, 9, 2, 8, 6, { kernel: [3, 3], padding: [2, 0, 1, 3] }),
  layer(2, 3, 1, 5, 6, { kernel: [1, 2], padding: [1, 2, 0, 1] }),
  layer(2, 3, 1, 5, 4, { kernel: [2, 2], stride: 2, padding: [2, 0, 3, 1] }),
];
