// Convolutions, with what is fused into them, and their backward pass.

import { conv2d, outputSize } from '../../kernels/conv2d/conv2d.ts';
import { inputGradient } from '../../kernels/conv2d/input-gradient.ts';
import { weightGradient } from '../../kernels/conv2d/weight-gradient.ts';
import { columns, type Shape } from '../../kernels/device/tensor.ts';
import type { Activation } from '../../kernels/elementwise/activation.ts';
import { concatOp, depthToSpaceOp, sliceOp } from './channels.ts';
import { addRowsOp, multiplyOp, scaledOp, scaleRowsOp } from './elementwise.ts';
import { type Apply, check, checkShape, elements, type Op, rowShape } from './op.ts';
import { padOp } from './resample.ts';
import { sumColumnsOp, sumPixelsOp } from './sums.ts';
import { blockOf, type Constant, derived, rangeOf, type Value } from './value.ts';

type Padding = readonly [top: number, left: number, bottom: number, right: number];

/**
 * y = (conv(act(a·x + b)) + bias + embedding + residual)·scale. The rows a and b are the input `affine`; act is applied
 * only with them. With `upsample`, x is upsampled first (nearest neighbour).
 */
export interface Conv2dAttributes {
  readonly outChannels: number;
  readonly kernel: readonly [number, number];
  readonly stride: number;
  readonly padding: Padding;
  readonly upsample?: 2;
  readonly activation?: Activation;
  readonly scale?: number;
}

export const conv2dOp: Op<Conv2dAttributes> = {
  infer({ x, residual, embedding, affine }, attributes) {
    const [c, n] = x!;
    const y: Shape = [attributes.outChannels, n, ...outputSize({ x: x!, ...attributes })];
    if (residual) checkShape('conv2d', 'residual', y, residual);
    if (embedding) checkShape('conv2d', 'embedding', rowShape(y), embedding);
    if (affine) checkShape('conv2d', 'affine', [2 * c, n, 1, 1], affine);
    return y;
  },
  constants: ({ x }, { outChannels, kernel }) => ({
    weight: outChannels * x![0] * kernel[0] * kernel[1],
    bias: outChannels,
  }),
  flop: ({ inputs: { x }, output }, { kernel }) => 2 * elements(output) * x![0] * kernel[0] * kernel[1],
  transformsWeight: true,
  loads: ({ rows }, { kernel, stride, upsample }) =>
    rows !== undefined || (kernel[0] === 3 && kernel[1] === 3 && stride === 1 && !upsample),
  adds: (_, { scale = 1 }) => scale === 1,
  forward(capabilities, { inputs, has }, { activation, ...attributes }, weights, compact) {
    return conv2d(capabilities, {
      ...attributes,
      x: inputs.x!,
      bias: has('bias'),
      ...(has('affine') ? { affine: activation ?? 'none' } : {}),
      embedding: has('embedding'),
      residual: has('residual'),
      weights,
      compact,
    });
  },
  split({ attributes, inputs: { x, ...others }, constants, ranges, apply }) {
    if (Object.keys(others).length > 0) return undefined;
    const { kernel, scale, ...rest } = attributes;
    const { outChannels } = attributes;
    return sumsOfRanges({ x: x!, outChannels, ranges, taps: kernel[0] * kernel[1], constants }, (range) =>
      apply(
        conv2dOp,
        { ...rest, kernel, outChannels: outChannels / ranges, ...(range.last ? { scale } : {}) },
        range.inputs,
        range.constants,
      ),
    );
  },
  backward({ attributes, inputs: { x, affine }, constants: { weight }, dy, needs, apply }) {
    const { kernel, stride, padding, activation = 'none', scale: factor = 1 } = attributes;
    check(
      !attributes.upsample && (!affine || activation === 'none'),
      () =>
        'conv2d: a convolution with a fused norm or upsampling has no derivative; differentiate the graph before fusing it',
    );
    const scaled = (value: Value) => (factor === 1 ? value : apply(scaledOp, { factor }, { x: value }));
    const rows = (from: number) => apply(sliceOp, { from, count: x!.shape[0] }, { x: affine });
    /** a·x + b, which is what the weights see. */
    const seen = () => {
      if (!affine) return x;
      const product = apply(scaleRowsOp, {}, { x, gate: rows(0) });
      return apply(addRowsOp, {}, { x: product, embedding: rows(x!.shape[0]) });
    };
    const dSeen =
      needs('x') || needs('affine') ? gradientOfInput(attributes, x!.shape, weight!, dy, apply) : undefined;
    const sums = (value: Value) => apply(sumPixelsOp, {}, { x: value });
    const dAffine = () => {
      const x0 = sums(apply(multiplyOp, {}, { x1: dSeen, x2: x }));
      return apply(concatOp, {}, { x0, x1: sums(dSeen!) });
    };
    return {
      ...(needs('x') ? { x: affine ? apply(scaleRowsOp, {}, { x: dSeen, gate: rows(0) }) : dSeen! } : {}),
      ...(needs('affine') ? { affine: dAffine() } : {}),
      ...(needs('weight')
        ? { weight: scaled(apply(weightGradientOp, { kernel, stride, padding }, { x: seen(), dy })) }
        : {}),
      ...(needs('bias') ? { bias: scaled(apply(sumColumnsOp, {}, { x: dy })) } : {}),
      ...(needs('embedding') ? { embedding: scaled(apply(sumPixelsOp, {}, { x: dy })) } : {}),
      ...(needs('residual') ? { residual: scaled(dy) } : {}),
    };
  },
};

/** What one range of inputs adds to one range of outputs. */
interface Addend {
  readonly inputs: { readonly x: Value; readonly residual: Value | undefined };
  readonly constants: { readonly weight: Constant; readonly bias: Constant | undefined };
  /** Whether it is the last range of inputs, which completes the output. */
  readonly last: boolean;
}

/**
 * Computes ranges of output channels from ranges of input channels: each range of inputs adds to the sum of those before, as
 * the residual. `add` adds the node; `taps` are the weights per pair of channels.
 */
export function sumsOfRanges(
  {
    x,
    outChannels,
    ranges,
    taps,
    constants: { weight, bias },
  }: {
    readonly x: readonly Value[];
    readonly outChannels: number;
    readonly ranges: number;
    readonly taps: number;
    readonly constants: Readonly<Record<string, Constant>>;
  },
  add: (addend: Addend) => Value,
): readonly Value[] {
  const each = outChannels / ranges;
  const width = taps * x.reduce((sum, { shape }) => sum + shape[0], 0);
  return Array.from({ length: ranges }, (_, o) => {
    let residual: Value | undefined;
    let from = 0;
    for (const [i, part] of x.entries()) {
      const count = taps * part.shape[0];
      const block = blockOf(weight!, width, { rows: [o * each, each], columns: [from, count] });
      residual = add({
        inputs: { x: part, residual },
        constants: { weight: block, bias: i === 0 && bias ? rangeOf(bias, o * each, each) : undefined },
        last: i === x.length - 1,
      });
      from += count;
    }
    return residual!;
  });
}

type Kernel = readonly [height: number, width: number];

/** Turns weights [oc, ic, kh, kw] into those of the transposed convolution: [ic, oc, kh, kw], rotated by 180 degrees. */
export const transposedWeight = (weight: Constant, oc: number, ic: number, kernel: Kernel): Constant =>
  phaseWeight(weight, oc, ic, kernel, 1);

/**
 * Turns weights [oc, ic, kh, kw] of a convolution with a stride into those of one convolution of stride 1 that computes
 * all phases of the input's gradient at once: [(k, l, ic), oc, ceil(kh / stride), ceil(kw / stride)]. Phase (k, l) has
 * the weights at rows k, k + stride, ... and columns l, l + stride, ..., in reverse order. A phase with fewer weights
 * has zeros in front of them.
 */
function phaseWeight(weight: Constant, oc: number, ic: number, [kh, kw]: Kernel, stride: number): Constant {
  const [th, tw] = [Math.ceil(kh / stride), Math.ceil(kw / stride)];
  const make = (values: Float32Array): Float32Array => {
    const made = new Float32Array(stride ** 2 * ic * oc * th * tw);
    for (let i = 0; i < kh; i++)
      for (let j = 0; j < kw; j++) {
        const phase = (i % stride) * stride + (j % stride);
        const tap = (th - 1 - Math.floor(i / stride)) * tw + tw - 1 - Math.floor(j / stride);
        for (let o = 0; o < oc; o++)
          for (let c = 0; c < ic; c++)
            made[((phase * ic + c) * oc + o) * th * tw + tap] = values[((o * ic + c) * kh + i) * kw + j]!;
      }
    return made;
  };
  const how = `transposed ${oc}x${ic}x${kh}x${kw}${stride === 1 ? '' : ` by ${stride}`}`;
  return derived(weight, how, make, stride ** 2 * ic * oc * th * tw);
}

/** The gradient of a 3x3 convolution with a stride: `inputGradient` in the kernels. `size` is that of its input. */
export interface InputGradientAttributes {
  readonly inChannels: number;
  readonly stride: number;
  readonly padding: Padding;
  readonly size: readonly [height: number, width: number];
  readonly scale?: number;
}

export const inputGradientOp: Op<InputGradientAttributes> = {
  infer({ dy, residual }, { inChannels, stride, padding, size }) {
    const [oc, n] = dy!;
    const x: Shape = [inChannels, n, ...size];
    checkShape('inputGradient', 'dy', [oc, n, ...outputSize({ x, kernel: [3, 3], stride, padding })], dy);
    if (residual) checkShape('inputGradient', 'residual', x, residual);
    return x;
  },
  constants: ({ dy }, { inChannels }) => ({ weight: 9 * dy![0] * inChannels }),
  flop: ({ inputs: { dy } }, { inChannels }) => 18 * elements(dy!) * inChannels,
  transformsWeight: true,
  adds: (_, { scale = 1 }) => scale === 1,
  forward: (capabilities, { inputs, output, has }, { inChannels, size, ...attributes }, weights, compact) =>
    inputGradient(capabilities, {
      ...attributes,
      x: output,
      dy: inputs.dy!,
      residual: has('residual'),
      weights,
      compact,
    }),
  backward: ({ attributes, inputs, constants: { weight }, dy: seen, apply }) => {
    const { inChannels, stride, padding, scale = 1 } = attributes;
    const outChannels = inputs.dy!.shape[0];
    return {
      dy: apply(
        conv2dOp,
        { outChannels, kernel: [3, 3], stride, padding, scale },
        { x: seen },
        { weight: transposedWeight(weight!, inChannels, outChannels, [3, 3]) },
      ),
    };
  },
};

/** Whether `inputGradientOp` computes dx: for 3x3 kernels, a padding of at most 1, and enough channels for its methods. */
const hasInputGradient = (kernel: Kernel, padding: Padding, ic: number, oc: number): boolean =>
  kernel[0] === 3 && kernel[1] === 3 && padding.every((size) => size <= 1) && ic >= 8 && oc >= 8;

/**
 * Adds the nodes that compute dx of y = conv(x), with x [ic, n, h, w] and dy [oc, n, oh, ow].
 *
 * Stride 1: dx = conv(dy) with the transposed weights and a padding of kernel - 1 - padding.
 * 3x3 with stride s and enough channels: `inputGradientOp`.
 * Stride s otherwise: pixel s·m + k - top of x was multiplied by the taps k, k + s, ... for the output pixels m, m - 1,
 * .... So each of the s² phases k of dx is a convolution of stride 1 with a kernel of ceil(kernel / s). All phases are
 * computed as one convolution with s²·ic channels, then moved to their pixels, and the padding is cut off.
 */
function gradientOfInput(
  { kernel, stride, padding, scale = 1 }: Conv2dAttributes,
  x: Shape,
  weight: Constant,
  dy: Value,
  apply: Apply,
): Value {
  const [ic, , h, w] = x;
  const oc = dy.shape[0];
  const [top, left] = padding;
  if (stride > 1 && hasInputGradient(kernel, padding, ic, oc))
    return apply(
      inputGradientOp,
      { inChannels: ic, stride, padding, size: [h, w], scale },
      { dy },
      { weight: transposedWeight(weight, oc, ic, kernel) },
    );
  const taps = [Math.ceil(kernel[0] / stride), Math.ceil(kernel[1] / stride)] as const;
  // The padding in front of the first pixel of each phase, and the number of pixels per phase. With stride 1 the only
  // phase is x itself.
  const [above, before] = stride === 1 ? [top, left] : [0, 0];
  const rows = stride === 1 ? h : Math.floor((h - 1 + top) / stride) + 1;
  const across = stride === 1 ? w : Math.floor((w - 1 + left) / stride) + 1;
  const around = [
    taps[0] - 1 - above,
    taps[1] - 1 - before,
    rows + above - dy.shape[2],
    across + before - dy.shape[3],
  ] as const;
  const inside = around.some((size) => size < 0)
    ? apply(
        padOp,
        {
          offset: [Math.min(around[0], 0), Math.min(around[1], 0)],
          size: [
            dy.shape[2] + Math.min(around[0], 0) + Math.min(around[2], 0),
            dy.shape[3] + Math.min(around[1], 0) + Math.min(around[3], 0),
          ],
        },
        { x: dy },
      )
    : dy;
  const phases = apply(
    conv2dOp,
    {
      outChannels: stride ** 2 * ic,
      kernel: taps,
      stride: 1,
      padding: [
        Math.max(around[0], 0),
        Math.max(around[1], 0),
        Math.max(around[2], 0),
        Math.max(around[3], 0),
      ],
      scale,
    },
    { x: inside },
    { weight: phaseWeight(weight, oc, ic, kernel, stride) },
  );
  if (stride === 1) return phases;
  const dealt = apply(depthToSpaceOp, { block: stride }, { x: phases });
  if (top === 0 && left === 0 && dealt.shape[2] === h && dealt.shape[3] === w) return dealt;
  return apply(padOp, { offset: [-top, -left], size: [h, w] }, { x: dealt });
}

/**
 * The gradient [oc, 1, 1, c·kh·kw] of a convolution's weights, from its x and dy. Classification differentiates only with
 * respect to images; the gradients of constants, here, in `sums.ts` and in their kernels, are kept for a trainer.
 */
export type WeightGradientAttributes = Pick<Conv2dAttributes, 'kernel' | 'stride' | 'padding'>;

export const weightGradientOp: Op<WeightGradientAttributes> = {
  infer({ x, dy }, attributes) {
    const y: Shape = [dy![0], x![1], ...outputSize({ x: x!, ...attributes })];
    checkShape('weightGradient', 'dy', y, dy);
    return [dy![0], 1, 1, x![0] * attributes.kernel[0] * attributes.kernel[1]];
  },
  flop: ({ inputs: { dy }, output }) => 2 * elements(output) * columns(dy!),
  forward: (capabilities, { inputs }, attributes) =>
    weightGradient(capabilities, { ...attributes, x: inputs.x!, outChannels: inputs.dy![0] }),
};
