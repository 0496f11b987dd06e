// The cases that the kernel benchmark times. They come from the case tables of the kernel tests; each has its
// routine, the operands that the routine binds, and its number of operations.

import { attention } from '../src/kernels/attention/attention.ts';
import { attentionGradient } from '../src/kernels/attention/attention-backward.ts';
import { conv2d, outputSize } from '../src/kernels/conv2d/conv2d.ts';
import { weightGradient } from '../src/kernels/conv2d/weight-gradient.ts';
import type { Capabilities, Device } from '../src/kernels/device/device.ts';
import { pack } from '../src/kernels/device/packing.ts';
import type { Routine } from '../src/kernels/device/routine.ts';
import { createStorage, type Launch } from '../src/kernels/device/runtime.ts';
import { type Shape, storageElements } from '../src/kernels/device/tensor.ts';
import { activate, add } from '../src/kernels/elementwise/elementwise.ts';
import { linear } from '../src/kernels/gemm/linear.ts';
import { groupNorm, groupNormAffine } from '../src/kernels/norm/group-norm.ts';
import { groupNormGradient } from '../src/kernels/norm/group-norm-backward.ts';
import { type AttentionCase, benchCases as attentions } from '../test/kernels/cases/attention.ts';
import { type ConvolutionCase, benchCases as convolutions } from '../test/kernels/cases/conv2d.ts';
import { type BackwardCase, benchCases as backwards } from '../test/kernels/cases/conv2d-backward.ts';
import { type GroupNormCase, benchCases as groupNorms } from '../test/kernels/cases/group-norm.ts';
import { type LinearCase, benchCases as linears } from '../test/kernels/cases/linear.ts';
import { benchShapes } from '../test/kernels/cases/shapes.ts';

export interface Entry {
  readonly op: string;
  readonly name: string;
  readonly routine: (capabilities: Capabilities) => Routine;
  /** Activations by operand name, including outputs. */
  readonly activations: Readonly<Record<string, Shape>>;
  /** Lengths of constants by operand name, in their natural order. */
  readonly constants: Readonly<Record<string, number>>;
  /** The same work for PyTorch (bench/device.py), if PyTorch has the operation. */
  readonly torch?: Readonly<Record<string, unknown>>;
  /** Floating-point operations of the definition (a multiplication and an addition count as two). */
  readonly flops: number;
}

/** Returns the bytes that must be read or written at least once: every operand, constants as f32. */
export const bytesOf = ({ activations, constants }: Entry): number =>
  4 *
  [...Object.values(activations).map(storageElements), ...Object.values(constants)].reduce(
    (a, b) => a + b,
    0,
  );

/**
 * Creates the launches of an entry and their buffers; `values` returns the values of an operand. `destroy` frees the
 * buffers.
 * @throws Error if a kernel binds an operand that the entry does not list.
 */
export function launchesOf(
  device: Device,
  entry: Entry,
  values: (count: number) => Float32Array<ArrayBuffer>,
): { readonly launches: readonly Launch[]; readonly destroy: () => void } {
  const routine = entry.routine(device.capabilities);
  const buffers = new Map<string, GPUBuffer>();
  const destroy = (): void => {
    for (const buffer of buffers.values()) buffer.destroy();
  };
  try {
    for (const [name, shape] of Object.entries(entry.activations))
      buffers.set(
        name,
        createStorage(device, 4 * storageElements(shape), values(storageElements(shape)), name),
      );
    for (const [name, length] of Object.entries(entry.constants)) {
      const packing = routine.packing[name];
      const data = packing ? pack(packing, values(length)) : values(length);
      buffers.set(name, createStorage(device, data.byteLength, data, name));
    }
    for (const [name, bytes] of Object.entries(routine.scratch))
      buffers.set(name, createStorage(device, bytes, undefined, name));
    const launches = routine.steps.map(
      ({ kernel, operands }): Launch => ({
        kernel,
        ranges: operands.map((name) => {
          const buffer = buffers.get(name);
          if (!buffer)
            throw new Error(
              `${entry.op} ${entry.name}: expected an operand ${name} for ${kernel.name}, got none`,
            );
          return { buffer, offset: 0, size: buffer.size };
        }),
      }),
    );
    return { launches, destroy };
  } catch (error) {
    destroy();
    throw error;
  }
}

const linearEntry = ({ name, options }: LinearCase): Entry => {
  const { x, outChannels, bias, residual } = options;
  const y: Shape = [outChannels, x[1], x[2], x[3]];
  return {
    op: 'linear',
    name,
    routine: (capabilities) => linear(capabilities, options),
    activations: { x, y, ...(residual ? { residual: y } : {}) },
    constants: { weight: outChannels * x[0], ...(bias ? { bias: outChannels } : {}) },
    torch: { op: 'linear', x, outChannels, bias },
    flops: 2 * outChannels * x[0] * x[1] * x[2] * x[3],
  };
};

const attentionEntries = ({ name, options }: AttentionCase): Entry[] => {
  const { heads, headDim, n, queries, keys } = options;
  const q: Shape = [heads * headDim, n, 1, queries];
  const k: Shape = [heads * headDim, n, 1, keys];
  const product = 2 * heads * headDim * n * queries * keys;
  // If their number of tokens differs, keys and values come from prompts, whose gradients are never computed.
  const gradientsOf = queries === keys ? 'qkv' : 'q';
  return [
    {
      op: 'attention',
      name,
      routine: (capabilities) => attention(capabilities, options),
      activations: { q, k, v: k, y: q },
      constants: {},
      torch: { op: 'attention', ...options },
      flops: 2 * product,
    },
    {
      op: 'attentionGradient',
      name,
      routine: (capabilities) => attentionGradient(capabilities, { ...options, of: gradientsOf }),
      activations: { q, k, v: k, dy: q, y: [gradientsOf.length * q[0], n, 1, queries] },
      constants: {},
      flops: (gradientsOf === 'qkv' ? 5 : 3) * product,
    },
  ];
};

const convolutionEntry = ({ name, options }: ConvolutionCase): Entry => {
  const { x, outChannels, kernel, bias, affine, embedding, residual } = options;
  const y: Shape = [outChannels, x[1], ...outputSize(options)];
  return {
    op: 'conv2d',
    name,
    routine: (capabilities) => conv2d(capabilities, options),
    activations: {
      x,
      y,
      ...(affine === undefined ? {} : { affine: [2 * x[0], x[1], 1, 1] }),
      ...(embedding ? { embedding: [outChannels, x[1], 1, 1] } : {}),
      ...(residual ? { residual: y } : {}),
    },
    constants: {
      weight: outChannels * x[0] * kernel[0] * kernel[1],
      ...(bias ? { bias: outChannels } : {}),
    },
    // PyTorch's convolution has none of what is fused here: a norm's affine, an embedding, a residual.
    torch: {
      op: 'conv2d',
      x,
      outChannels,
      kernel,
      bias,
      stride: options.stride ?? 1,
      padding: options.padding ?? [0, 0, 0, 0],
      upsample: options.upsample ?? 1,
    },
    flops: 2 * outChannels * x[0] * kernel[0] * kernel[1] * y[1] * y[2] * y[3],
  };
};

const weightGradientEntry = ({ name, options }: BackwardCase): Entry => {
  const { x, outChannels, kernel } = options;
  const dy: Shape = [outChannels, x[1], ...outputSize(options)];
  const length = x[0] * kernel[0] * kernel[1];
  return {
    op: 'weightGradient',
    name,
    routine: (capabilities) => weightGradient(capabilities, options),
    activations: { x, dy, y: [outChannels, 1, 1, length] },
    constants: {},
    torch: {
      op: 'weightGradient',
      x,
      outChannels,
      kernel,
      stride: options.stride ?? 1,
      padding: options.padding ?? [0, 0, 0, 0],
    },
    flops: 2 * outChannels * length * dy[1] * dy[2] * dy[3],
  };
};

const groupNormEntries = ({ name, options }: GroupNormCase): Entry[] => {
  const { x, scaleShift } = options;
  const shared = {
    constants: { gamma: x[0], beta: x[0] },
    flops: 0,
  };
  const rows: Shape = [2 * x[0], x[1], 1, 1];
  const inputs = { x, ...(scaleShift ? { embedding: rows } : {}) };
  return [
    {
      ...shared,
      op: 'groupNorm',
      name,
      routine: (capabilities) => groupNorm(capabilities, { ...options, activation: 'silu' }),
      activations: { ...inputs, y: x },
      torch: { op: 'groupNorm', x, groups: options.groups },
    },
    {
      ...shared,
      op: 'groupNormGradient',
      name,
      routine: (capabilities) => groupNormGradient(capabilities, { ...options, activation: 'silu' }),
      activations: { ...inputs, dy: x, y: x },
    },
    {
      ...shared,
      op: 'groupNormAffine',
      name,
      routine: (capabilities) => groupNormAffine(capabilities, options),
      activations: { ...inputs, y: rows },
    },
  ];
};

const elementwiseEntries = (x: Shape): Entry[] => [
  {
    op: 'activation',
    name: `[${x}] silu`,
    routine: (capabilities) => activate(capabilities, { x, activation: 'silu' }),
    activations: { x, y: x },
    constants: {},
    flops: 0,
  },
  {
    op: 'add',
    name: `[${x}]`,
    routine: (capabilities) => add(capabilities, { x }),
    activations: { x1: x, x2: x, y: x },
    constants: {},
    torch: { op: 'add', x },
    flops: 0,
  },
];

/** Cases by op, in the form of the kernel tests' tables. */
export interface EntryCases {
  readonly linear?: readonly LinearCase[];
  readonly attention?: readonly AttentionCase[];
  readonly conv2d?: readonly ConvolutionCase[];
  readonly weightGradient?: readonly BackwardCase[];
  readonly groupNorm?: readonly GroupNormCase[];
  readonly elementwise?: readonly Shape[];
}

/** Returns the entries of cases. A case of attention also gives one for its gradient, a group norm gives three. */
export const entriesOf = (cases: EntryCases): readonly Entry[] => [
  ...(cases.linear ?? []).map(linearEntry),
  ...(cases.attention ?? []).flatMap(attentionEntries),
  ...(cases.conv2d ?? []).map(convolutionEntry),
  ...(cases.weightGradient ?? []).map(weightGradientEntry),
  ...(cases.groupNorm ?? []).flatMap(groupNormEntries),
  ...(cases.elementwise ?? []).flatMap(elementwiseEntries),
];

export const entries: readonly Entry[] = entriesOf({
  linear: linears,
  attention: attentions,
  conv2d: convolutions,
  weightGradient: backwards,
  groupNorm: groupNorms,
  elementwise: benchShapes,
});
