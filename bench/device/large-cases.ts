// Cases that are large enough for a GPU. Those of the kernel tests are chosen for two CPU cores.

import type { Conv2dOptions } from '../../src/kernels/conv2d/conv2d.ts';
import type { Shape } from '../../src/kernels/device/tensor.ts';
import type { LinearOptions } from '../../src/kernels/gemm/linear.ts';
import { type Entry, entriesOf } from '../entries.ts';

const layer = (x: Shape, outChannels: number, extra: Partial<LinearOptions> = {}) => ({
  name: `${x[0]}->${outChannels} [${x}]${extra.weights === 'f16' ? ', f16' : ''}`,
  options: { x, outChannels, bias: false, weights: 'f32', ...extra } as LinearOptions,
});

const product = (side: number, extra: Partial<LinearOptions> = {}) => layer([side, 1, 1, side], side, extra);

const convolution = (c: number, oc: number, n: number, side: number, extra: Partial<Conv2dOptions> = {}) => ({
  name: `${c}->${oc} ${side}x${side} n=${n} ${extra.kernel?.join('x') ?? '3x3'}${extra.stride ? ', stride 2' : ''}${extra.compact ? ', compact' : ''}${extra.weights === 'f16' ? ', f16' : ''}`,
  options: {
    x: [c, n, side, side],
    outChannels: oc,
    kernel: [3, 3],
    padding: [1, 1, 1, 1],
    bias: true,
    weights: 'f32',
    ...extra,
  } as Conv2dOptions,
});

const attention = (heads: number, headDim: number, n: number, queries: number, keys = queries) => ({
  name: `${heads}x${headDim} heads, n=${n}, ${queries} queries of ${keys} keys`,
  options: { heads, headDim, n, queries, keys, scale: headDim ** -0.5 },
});

const norm = (x: Shape, groups: number) => ({
  name: `[${x}] G=${groups}`,
  options: { x, groups, eps: 1e-5, scaleShift: false },
});

/** How large networks are planned: weights in f16, without copies of transformed weights. */
const compact = { compact: true, weights: 'f16' } as const;

export const largeEntries: readonly Entry[] = entriesOf({
  linear: [
    product(1024),
    product(2048),
    product(4096),
    product(4096, { weights: 'f16' }),
    layer([320, 16, 64, 64], 320, { weights: 'f16' }),
    layer([320, 16, 64, 64], 2560, { weights: 'f16' }),
    layer([1280, 16, 16, 16], 10240, { weights: 'f16' }),
    layer([1152, 8, 16, 16], 4608, { weights: 'f16' }),
  ],
  conv2d: [
    convolution(128, 128, 64, 32),
    convolution(256, 256, 64, 16),
    convolution(320, 320, 16, 64),
    convolution(320, 320, 16, 64, compact),
    convolution(640, 640, 16, 32, compact),
    convolution(1280, 1280, 16, 16, compact),
    convolution(1280, 1280, 16, 8, compact),
    convolution(320, 320, 16, 64, { ...compact, stride: 2 }),
    convolution(16, 16, 1024, 28),
    convolution(32, 32, 1024, 14),
    convolution(96, 96, 1024, 7),
  ],
  attention: [
    attention(8, 40, 4, 4096),
    attention(8, 40, 16, 4096, 77),
    attention(8, 80, 16, 1024),
    attention(16, 72, 8, 256),
  ],
  weightGradient: [convolution(128, 128, 64, 32)],
  groupNorm: [norm([320, 16, 64, 64], 32), norm([128, 64, 32, 32], 32)],
  elementwise: [[320, 16, 64, 64]],
});
