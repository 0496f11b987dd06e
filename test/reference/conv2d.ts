// A slow, obvious implementation of convolution. Every sum is in f64; arrays are in the usual [n, c, h, w]
// order.

import { type Conv2dOptions, outputSize } from '../../src/kernels/conv2d/conv2d.ts';
import type { Activation } from '../../src/kernels/elementwise/activation.ts';

const activations: Partial<Record<Activation, (v: number) => number>> = {
  none: (v) => v,
  silu: (v) => v / (1 + Math.exp(-v)),
  relu: (v) => Math.max(v, 0),
};

export interface ConvolutionInputs {
  /** x [n, c, h, w]. */
  readonly x: ArrayLike<number>;
  /** weight [oc, c, kh, kw]. */
  readonly weight: ArrayLike<number>;
  /** bias [oc]. */
  readonly bias?: ArrayLike<number>;
  /** affine [n, 2c]: c slopes, then c offsets. */
  readonly affine?: ArrayLike<number>;
  /** embedding [n, oc]. */
  readonly embedding?: ArrayLike<number>;
  /** residual [n, oc, oh, ow]. */
  readonly residual?: ArrayLike<number>;
}

/** Returns y [n, oc, oh, ow]. */
export function referenceConv2d(options: Conv2dOptions, inputs: ConvolutionInputs): Float64Array {
  const { x: shape, outChannels, kernel, stride = 1, padding = [0, 0, 0, 0], upsample, scale = 1 } = options;
  const [channels, n, h, w] = shape;
  const [kh, kw] = kernel;
  const [oh, ow] = outputSize(options);
  const enlarge = upsample ?? 1;
  const act = activations[options.affine ?? 'none']!;
  const x = Float64Array.from(inputs.x);
  const { affine } = inputs;
  if (affine)
    for (let s = 0; s < n; s++)
      for (let c = 0; c < channels; c++)
        for (let p = 0; p < h * w; p++) {
          const i = (s * channels + c) * h * w + p;
          x[i] = act(affine[s * 2 * channels + c]! * x[i]! + affine[s * 2 * channels + channels + c]!);
        }
  const y = new Float64Array(n * outChannels * oh * ow);
  for (let s = 0; s < n; s++)
    for (let o = 0; o < outChannels; o++)
      for (let i = 0; i < oh; i++)
        for (let j = 0; j < ow; j++) {
          let sum = inputs.bias?.[o] ?? 0;
          for (let c = 0; c < channels; c++)
            for (let a = 0; a < kh; a++)
              for (let b = 0; b < kw; b++) {
                const row = i * stride + a - padding[0];
                const column = j * stride + b - padding[1];
                if (row < 0 || column < 0 || row >= h * enlarge || column >= w * enlarge) continue;
                const at = Math.floor(row / enlarge) * w + Math.floor(column / enlarge);
                sum +=
                  x[(s * channels + c) * h * w + at]! *
                  inputs.weight[((o * channels + c) * kh + a) * kw + b]!;
              }
          const at = ((s * outChannels + o) * oh + i) * ow + j;
          sum += (inputs.embedding?.[s * outChannels + o] ?? 0) + (inputs.residual?.[at] ?? 0);
          y[at] = sum * scale;
        }
  return y;
}

export interface ConvolutionGradients {
  readonly x: Float64Array;
  readonly weight: Float64Array;
  readonly bias: Float64Array;
  readonly embedding: Float64Array;
  readonly residual: Float64Array;
}

/**
 * Returns the gradients of Σ dy · y for the same inputs, each laid out like its operand. It supports neither
 * affine nor upsampling.
 */
export function referenceConv2dBackward(
  options: Conv2dOptions,
  { x, weight }: ConvolutionInputs,
  dy: ArrayLike<number>,
): ConvolutionGradients {
  const { x: shape, outChannels, kernel, stride = 1, padding = [0, 0, 0, 0], scale = 1 } = options;
  const [channels, n, h, w] = shape;
  const [kh, kw] = kernel;
  const [oh, ow] = outputSize(options);
  const gradients = {
    x: new Float64Array(n * channels * h * w),
    weight: new Float64Array(outChannels * channels * kh * kw),
    bias: new Float64Array(outChannels),
    embedding: new Float64Array(n * outChannels),
    residual: new Float64Array(n * outChannels * oh * ow),
  };
  for (let s = 0; s < n; s++)
    for (let o = 0; o < outChannels; o++)
      for (let i = 0; i < oh; i++)
        for (let j = 0; j < ow; j++) {
          const at = ((s * outChannels + o) * oh + i) * ow + j;
          const d = scale * dy[at]!;
          gradients.residual[at] = d;
          gradients.bias[o]! += d;
          gradients.embedding[s * outChannels + o]! += d;
          for (let c = 0; c < channels; c++)
            for (let a = 0; a < kh; a++)
              for (let b = 0; b < kw; b++) {
                const row = i * stride + a - padding[0];
                const column = j * stride + b - padding[1];
                if (row < 0 || column < 0 || row >= h || column >= w) continue;
                const pixel = ((s * channels + c) * h + row) * w + column;
                const tap = ((o * channels + c) * kh + a) * kw + b;
                gradients.x[pixel]! += d * weight[tap]!;
                gradients.weight[tap]! += d * x[pixel]!;
              }
        }
  return gradients;
}
