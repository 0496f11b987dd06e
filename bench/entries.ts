// What the kernel benchmark times: the case tables of the kernel tests, each case with its routine, the operands
// that the routine binds, and the work it has to do.

import { attention } from '../src/kernels/attention.ts';
import { attentionGradient } from '../src/kernels/attention-backward.ts';
import { conv2d, outputSize } from '../src/kernels/conv2d.ts';
import type { Capabilities } from '../src/kernels/device.ts';
import { activate, add } from '../src/kernels/elementwise.ts';
import { groupNorm, groupNormAffine } from '../src/kernels/groupnorm.ts';
import { groupNormGradient } from '../src/kernels/groupnorm-backward.ts';
import { linear } from '../src/kernels/linear.ts';
import type { Routine } from '../src/kernels/routine.ts';
import { type Shape, storageElements } from '../src/kernels/tensor.ts';
import { weightGradient } from '../src/kernels/weightgradient.ts';
import { benchCases as attentions } from '../test/kernels/cases/attention.ts';
import { benchCases as convolutions } from '../test/kernels/cases/conv2d.ts';
import { benchCases as backwards } from '../test/kernels/cases/conv2d-backward.ts';
import { benchCases as groupNorms } from '../test/kernels/cases/groupnorm.ts';
import { benchCases as linears } from '../test/kernels/cases/linear.ts';
import { benchShapes } from '../test/kernels/cases/shapes.ts';

export interface Entry {
  readonly op: string;
  readonly name: string;
  readonly routine: (capabilities: Capabilities) => Routine;
  /** Activations by operand name, outputs too. */
  readonly activations: Readonly<Record<string, Shape>>;
  /** Lengths of constants by operand name, in their natural order. */
  readonly constants: Readonly<Record<string, number>>;
  /** Floating-point operations of the definition (a multiplication and an addition count as two). */
  readonly flops: number;
}

/** Bytes that must cross memory once: every operand, constants as f32. */
export const bytesOf = ({ activations, constants }: Entry): number =>
  4 *
  [...Object.values(activations).map(storageElements), ...Object.values(constants)].reduce(
    (a, b) => a + b,
    0,
  );

const linearEntries = linears.map(({ name, options }): Entry => {
  const { x, outChannels, bias, residual } = options;
  const y: Shape = [outChannels, x[1], x[2], x[3]];
  return {
    op: 'linear',
    name,
    routine: (capabilities) => linear(capabilities, options),
    activations: { x, y, ...(residual ? { residual: y } : {}) },
    constants: { weight: outChannels * x[0], ...(bias ? { bias: outChannels } : {}) },
    flops: 2 * outChannels * x[0] * x[1] * x[2] * x[3],
  };
});

const attentionEntries = attentions.flatMap(({ name, options }): Entry[] => {
  const { heads, headDim, n, queries, keys } = options;
  const q: Shape = [heads * headDim, n, 1, queries];
  const k: Shape = [heads * headDim, n, 1, keys];
  const product = 2 * heads * headDim * n * queries * keys;
  // Keys and values of another number of tokens are those of prompts, whose gradients nobody asks for.
  const of = queries === keys ? 'qkv' : 'q';
  return [
    {
      op: 'attention',
      name,
      routine: (capabilities) => attention(capabilities, options),
      activations: { q, k, v: k, y: q },
      constants: {},
      flops: 2 * product,
    },
    {
      op: 'attentionGradient',
      name,
      routine: (capabilities) => attentionGradient(capabilities, { ...options, of }),
      activations: { q, k, v: k, dy: q, y: [of.length * q[0], n, 1, queries] },
      constants: {},
      flops: (of === 'qkv' ? 5 : 3) * product,
    },
  ];
});

const convolutionEntries = convolutions.map(({ name, options }): Entry => {
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
    flops: 2 * outChannels * x[0] * kernel[0] * kernel[1] * y[1] * y[2] * y[3],
  };
});

const weightGradientEntries = backwards.map(({ name, options }): Entry => {
  const { x, outChannels, kernel } = options;
  const dy: Shape = [outChannels, x[1], ...outputSize(options)];
  const length = x[0] * kernel[0] * kernel[1];
  return {
    op: 'weightGradient',
    name,
    routine: (capabilities) => weightGradient(capabilities, options),
    activations: { x, dy, y: [outChannels, 1, 1, length] },
    constants: {},
    flops: 2 * outChannels * length * dy[1] * dy[2] * dy[3],
  };
});

const groupNormEntries = groupNorms.flatMap(({ name, options }): Entry[] => {
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
});

const elementwiseEntries = benchShapes.flatMap((x): Entry[] => [
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
    flops: 0,
  },
]);

export const entries: readonly Entry[] = [
  ...linearEntries,
  ...attentionEntries,
  ...convolutionEntries,
  ...weightGradientEntries,
  ...groupNormEntries,
  ...elementwiseEntries,
];
