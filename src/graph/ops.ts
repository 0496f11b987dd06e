// The one table of ops: the shape each makes (with an error that names the op and both numbers), the lengths
// its constants must have, and what it becomes on a device. A derivative belongs beside its `forward`.

import type { Activation } from '../kernels/activation.ts';
import { attention } from '../kernels/attention.ts';
import { conv2d, outputSize } from '../kernels/conv2d.ts';
import type { Capabilities } from '../kernels/device.ts';
import {
  activate,
  add,
  addImage,
  addRows,
  concat,
  copyChannels,
  gatedAdd,
  geglu,
} from '../kernels/elementwise.ts';
import { type Distance, errorReduction } from '../kernels/error-reduction.ts';
import { ShapeError } from '../kernels/errors.ts';
import { gather } from '../kernels/gather.ts';
import { groupNorm, groupNormAffine } from '../kernels/groupnorm.ts';
import { layerNorm } from '../kernels/layernorm.ts';
import { linear } from '../kernels/linear.ts';
import { mix, type NoiseSource } from '../kernels/mix.ts';
import { pickSamples } from '../kernels/picksamples.ts';
import { averagePool2x2, depthToSpace, upsampleNearest } from '../kernels/resample.ts';
import type { Routine, WeightDtype } from '../kernels/routine.ts';
import type { Shape } from '../kernels/tensor.ts';
import type { Node } from './graph.ts';

type Padding = readonly [top: number, left: number, bottom: number, right: number];

export interface OpAttributes {
  /** y = (conv(act(a·x + b)) + bias + embedding + residual)·scale, nearest upsampling of x in front. */
  readonly conv2d: {
    readonly outChannels: number;
    readonly kernel: readonly [number, number];
    readonly stride: number;
    readonly padding: Padding;
    readonly upsample?: 2;
    readonly activation?: Activation;
    readonly scale?: number;
  };
  /** y = act(weight·x + bias)·… over channels, a column each; also the 1x1 convolution. */
  readonly linear: {
    readonly outChannels: number;
    readonly activation?: Activation;
    readonly scale?: number;
  };
  /** y = act(GN(x)·(1 + scale) + shift); scale and shift are the rows of `embedding`, where given. */
  readonly groupNorm: { readonly groups: number; readonly eps: number; readonly activation: Activation };
  /** The same without applying it: rows a, then b, of act(a·x + b). */
  readonly groupNormAffine: { readonly groups: number; readonly eps: number };
  /** y = (LN(x)·gamma + beta)·(1 + scale) + shift over the channels of each column; constants and rows where given. */
  readonly layerNorm: { readonly eps: number };
  /** y = x1·gelu(x2). */
  readonly geglu: Record<never, never>;
  /** Causal: token i of q sees the tokens 0 to i of k and v. */
  readonly attention: { readonly heads: number; readonly scale: number; readonly causal?: boolean };
  readonly activation: { readonly activation: Activation };
  /** y = (x1 + x2)·scale. */
  readonly add: { readonly scale?: number };
  /** y[c, n, p] = x[c, n, p] + embedding[c, n]. */
  readonly addRows: Record<never, never>;
  /** y[c, n, p] = x1[c, n, p] + gate[c, n]·x2[c, n, p]. */
  readonly gatedAdd: Record<never, never>;
  /** y[c, n, p] = x[c, n, p] + image[c, p], with a constant image. */
  readonly addImage: Record<never, never>;
  /** Channels of all inputs, in their order. */
  readonly concat: Record<never, never>;
  /** `count` channels from `from` on. */
  readonly slice: { readonly from: number; readonly count: number };
  /** Nearest, to twice the size or to the one given. */
  readonly upsample: { readonly size?: readonly [height: number, width: number] };
  readonly averagePool: Record<never, never>;
  /** y[c, n, i·b + k, j·b + l] = x[(k·b + l)·channels + c, n, i, j], b = block. */
  readonly depthToSpace: { readonly block: number };
  /** y[c, n] = table[index[n]][c]. */
  readonly gather: { readonly entries: number; readonly channels: number };
  /** y[c, n] = x[c, index[n]]: samples repeated, or chosen from a table of them. */
  readonly pickSamples: Record<never, never>;
  /** x_t = a·x0 + b·eps, sample by sample from slots, levels and noise indices. */
  readonly mix: { readonly noise: NoiseSource; readonly image: readonly [c: number, h: number, w: number] };
  /** The distance of eps and alpha·prediction + beta·x_t, one number a sample. */
  readonly errors: { readonly noise: NoiseSource; readonly distance: Distance; readonly channels: number };
}

export type OpName = keyof OpAttributes;
type Shapes = Readonly<Record<string, Shape>>;

interface Op<Attributes> {
  infer(inputs: Shapes, attributes: Attributes): Shape;
  /** Lengths of its constants; those that are optional are checked only where given. */
  constants(inputs: Shapes, attributes: Attributes): Readonly<Record<string, number>>;
  forward(
    capabilities: Capabilities,
    node: NodeShapes,
    attributes: Attributes,
    weights: WeightDtype,
    compact: boolean,
  ): Routine;
}

/** What a node binds, for choosing its kernels. */
interface NodeShapes {
  readonly inputs: Shapes;
  readonly output: Shape;
  readonly has: (operand: string) => boolean;
}

const want = (ok: boolean, message: () => string): void => {
  if (!ok) throw new ShapeError(message());
};
const text = (shape: Shape | undefined): string => `[${shape?.join(', ') ?? 'nothing'}]`;
const same = (a: Shape, b: Shape): boolean => a.every((size, i) => size === b[i]);
const isRow = (x: Shape, z: Shape): boolean => z[0] === x[0] && z[1] === x[1] && z[2] === 1 && z[3] === 1;
const none = () => ({});

function residualFits(op: string, y: Shape, residual: Shape | undefined): void {
  want(
    !residual || same(y, residual),
    () => `${op}: the residual is ${text(residual)}, the result ${text(y)}`,
  );
}

export const ops: { readonly [Name in OpName]: Op<OpAttributes[Name]> } = {
  conv2d: {
    infer({ x, residual, embedding, affine }, attributes) {
      const [c, n, h, w] = x!;
      const y: Shape = [attributes.outChannels, n, ...outputSize({ x: x!, ...attributes })];
      residualFits('conv2d', y, residual);
      want(
        !embedding || isRow(y, embedding),
        () => `conv2d: the embedding is ${text(embedding)}, the result ${text(y)}`,
      );
      want(
        !affine || isRow([2 * c, n, h, w], affine),
        () => `conv2d: affine is ${text(affine)}, x is ${text(x)}`,
      );
      return y;
    },
    constants: ({ x }, { outChannels, kernel }) => ({
      weight: outChannels * x![0] * kernel[0] * kernel[1],
      bias: outChannels,
    }),
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
  },
  linear: {
    infer({ x, residual }, { outChannels }) {
      const y: Shape = [outChannels, x![1], x![2], x![3]];
      residualFits('linear', y, residual);
      return y;
    },
    constants: ({ x }, { outChannels }) => ({ weight: outChannels * x![0], bias: outChannels }),
    forward: (capabilities, { inputs, has }, attributes, weights) =>
      linear(capabilities, {
        ...attributes,
        x: inputs.x!,
        bias: has('bias'),
        residual: has('residual'),
        weights,
      }),
  },
  groupNorm: {
    infer({ x, embedding }, { groups }) {
      groupsFit('groupNorm', x!, embedding, groups);
      return x!;
    },
    constants: ({ x }) => ({ gamma: x![0], beta: x![0] }),
    forward: (capabilities, { inputs, has }, attributes) =>
      groupNorm(capabilities, { ...attributes, x: inputs.x!, scaleShift: has('embedding') }),
  },
  groupNormAffine: {
    infer({ x, embedding }, { groups }) {
      groupsFit('groupNormAffine', x!, embedding, groups);
      return [2 * x![0], x![1], 1, 1];
    },
    constants: ({ x }) => ({ gamma: x![0], beta: x![0] }),
    forward: (capabilities, { inputs, has }, attributes) =>
      groupNormAffine(capabilities, { ...attributes, x: inputs.x!, scaleShift: has('embedding') }),
  },
  layerNorm: {
    infer({ x, scale, shift }) {
      want(
        (!scale && !shift) ||
          (scale !== undefined && shift !== undefined && isRow(x!, scale) && isRow(x!, shift)),
        () => `layerNorm: scale is ${text(scale)}, shift is ${text(shift)}, x is ${text(x)}`,
      );
      return x!;
    },
    constants: ({ x }) => ({ gamma: x![0], beta: x![0] }),
    forward: (capabilities, { inputs, has }, { eps }) =>
      layerNorm(capabilities, {
        x: inputs.x!,
        eps,
        gamma: has('gamma'),
        beta: has('beta'),
        modulated: has('scale'),
      }),
  },
  geglu: {
    infer({ x1, x2 }) {
      want(same(x1!, x2!), () => `geglu: x1 is ${text(x1)}, x2 is ${text(x2)}`);
      return x1!;
    },
    constants: none,
    forward: (capabilities, { inputs }) => geglu(capabilities, { x: inputs.x1! }),
  },
  attention: {
    infer({ q, k, v }, { heads, causal = false }) {
      want(q![0] % heads === 0, () => `attention: ${q![0]} channels do not split into ${heads} heads`);
      want(
        q![0] === k![0] && same(k!, v!) && q![1] === k![1],
        () => `attention: q ${text(q)}, k ${text(k)} and v ${text(v)} do not fit`,
      );
      want(
        !causal || same(q!, k!),
        () => `attention: causal, so q ${text(q)} and k ${text(k)} should have the same tokens`,
      );
      return q!;
    },
    constants: none,
    forward: (capabilities, { inputs }, attributes) =>
      attention(capabilities, {
        ...attributes,
        headDim: inputs.q![0] / attributes.heads,
        n: inputs.q![1],
        queries: inputs.q![2] * inputs.q![3],
        keys: inputs.k![2] * inputs.k![3],
      }),
  },
  activation: {
    infer: ({ x }) => x!,
    constants: none,
    forward: (capabilities, { inputs }, { activation }) =>
      activate(capabilities, { x: inputs.x!, activation }),
  },
  add: {
    infer({ x1, x2 }) {
      want(same(x1!, x2!), () => `add: x1 is ${text(x1)}, x2 is ${text(x2)}`);
      return x1!;
    },
    constants: none,
    forward: (capabilities, { inputs }, { scale = 1 }) => add(capabilities, { x: inputs.x1!, scale }),
  },
  addRows: {
    infer({ x, embedding }) {
      want(isRow(x!, embedding!), () => `addRows: x is ${text(x)}, the embedding is ${text(embedding)}`);
      return x!;
    },
    constants: none,
    forward: (capabilities, { inputs }) => addRows(capabilities, { x: inputs.x! }),
  },
  gatedAdd: {
    infer({ x1, x2, gate }) {
      want(
        same(x1!, x2!) && isRow(x1!, gate!),
        () => `gatedAdd: x1 is ${text(x1)}, x2 is ${text(x2)}, the gate is ${text(gate)}`,
      );
      return x1!;
    },
    constants: none,
    forward: (capabilities, { inputs }) => gatedAdd(capabilities, { x: inputs.x1! }),
  },
  addImage: {
    infer: ({ x }) => x!,
    constants: ({ x }) => ({ image: x![0] * x![2] * x![3] }),
    forward: (capabilities, { inputs }) => addImage(capabilities, { x: inputs.x! }),
  },
  concat: {
    infer(inputs) {
      const parts = Object.values(inputs);
      const [, n, h, w] = parts[0]!;
      for (const part of parts)
        want(
          same([part[0], n, h, w], part),
          () => `concat: ${text(parts[0])} and ${text(part)} differ in more than channels`,
        );
      return [parts.reduce((sum, part) => sum + part[0], 0), n, h, w];
    },
    constants: none,
    forward: (capabilities, { inputs }) => concat(capabilities, { inputs: Object.values(inputs) }),
  },
  slice: {
    infer({ x }, { from, count }) {
      want(
        from >= 0 && from + count <= x![0],
        () => `slice: channels ${from} to ${from + count} of x ${text(x)}`,
      );
      return [count, x![1], x![2], x![3]];
    },
    constants: none,
    forward: (capabilities, { inputs, output }, { from, count }) =>
      copyChannels(capabilities, { x: inputs.x!, from, y: output, channels: count }),
  },
  upsample: {
    infer: ({ x }, { size }) => [x![0], x![1], ...(size ?? ([2 * x![2], 2 * x![3]] as const))],
    constants: none,
    forward: (capabilities, { inputs, output }) =>
      upsampleNearest(capabilities, { x: inputs.x!, size: [output[2], output[3]] }),
  },
  averagePool: {
    infer: ({ x }) => [x![0], x![1], Math.floor(x![2] / 2), Math.floor(x![3] / 2)],
    constants: none,
    forward: (capabilities, { inputs }) => averagePool2x2(capabilities, { x: inputs.x! }),
  },
  depthToSpace: {
    infer({ x }, { block }) {
      const channels = x![0] / block ** 2;
      want(
        Number.isInteger(channels),
        () => `depthToSpace: x ${text(x)} has no whole blocks of ${block}x${block}`,
      );
      return [channels, x![1], block * x![2], block * x![3]];
    },
    constants: none,
    forward: (capabilities, { inputs }, { block }) => depthToSpace(capabilities, { x: inputs.x!, block }),
  },
  gather: {
    infer: ({ index }, { channels }) => [channels, index![1], 1, 1],
    constants: (_, { entries, channels }) => ({ table: entries * channels }),
    forward: (capabilities, { inputs }, { entries, channels }) =>
      gather(capabilities, { n: inputs.index![1], entries, channels }),
  },
  pickSamples: {
    infer: ({ x, index }) => [x![0], index![1], x![2], x![3]],
    constants: none,
    forward: (capabilities, { inputs }) => pickSamples(capabilities, { x: inputs.x!, n: inputs.index![1] }),
  },
  mix: {
    infer: ({ slot }, { image: [c, h, w] }) => [c, slot![1], h, w],
    constants: none,
    forward: (capabilities, { output }, { noise }) => mix(capabilities, { y: output, noise }),
  },
  errors: {
    infer({ prediction, xt }, { channels }) {
      want(
        xt![0] === channels && prediction![0] >= channels && same([channels, ...tail(prediction!)], xt!),
        () => `errors: the prediction is ${text(prediction)}, x_t is ${text(xt)}`,
      );
      return [1, xt![1], 1, 1];
    },
    constants: none,
    forward: (capabilities, { inputs }, { noise, distance }) =>
      errorReduction(capabilities, { prediction: inputs.prediction!, xt: inputs.xt!, noise, distance }),
  },
};

const tail = ([, n, h, w]: Shape): [number, number, number] => [n, h, w];

function groupsFit(op: string, x: Shape, embedding: Shape | undefined, groups: number): void {
  want(
    x[0] % groups === 0,
    () => `${op}: ${x[0]} channels do not split into ${groups} groups (x ${text(x)})`,
  );
  want(
    !embedding || isRow([2 * x[0], x[1], 1, 1], embedding),
    () => `${op}: scale and shift are ${text(embedding)}, x is ${text(x)}`,
  );
}

/** The routine of a node on a device; `compact` as in `Conv2dOptions`. */
export function forward(
  node: Node,
  capabilities: Capabilities,
  weights: WeightDtype,
  compact = false,
): Routine {
  const inputs = Object.fromEntries(Object.entries(node.inputs).map(([name, value]) => [name, value.shape]));
  const shapes: NodeShapes = {
    inputs,
    output: node.output.shape,
    has: (operand) => operand in node.inputs || operand in node.constants,
  };
  const op = ops[node.op] as Op<typeof node.attributes>;
  return op.forward(capabilities, shapes, node.attributes, weights, compact);
}
