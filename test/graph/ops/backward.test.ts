// The gradients that ops add to a graph, on a device: for every operand, <u, gradient> equals <J u, dy> of the
// reference, by finite differences in f64. The kernels have their own tests; these test which kernels an op uses, and
// on which operands.

import { afterAll, describe, expect, it } from 'vitest';
import { differentiate } from '../../../src/graph/core/gradient.ts';
import { apply, input, newGraph, output } from '../../../src/graph/core/graph.ts';
import type { OpAttributes, OpName } from '../../../src/graph/ops/table.ts';
import type { Constant } from '../../../src/graph/ops/value.ts';
import type { Family } from '../../../src/kernels/device/device.ts';
import { columns, type Shape } from '../../../src/kernels/device/tensor.ts';
import { noiseKeys } from '../../../src/kernels/diffusion/philox.ts';
import { randomValues, testDevice } from '../../kernels/harness.ts';
import { referenceActivation } from '../../reference/activation.ts';
import { referenceAttention } from '../../reference/attention.ts';
import { worstDerivative } from '../../reference/differences.ts';
import { referenceAffine, referenceGroupNormAffine, referenceLayerNorm } from '../../reference/groupnorm.ts';
import { referenceErrors, referenceMix } from '../../reference/noise.ts';
import { runGraph } from '../run-graph.ts';

type Operands = Readonly<Record<string, Float64Array>>;

interface Case {
  readonly op: OpName;
  readonly attributes?: object;
  readonly inputs: Readonly<Record<string, Shape>>;
  /** Lengths of the constants whose gradients are checked. */
  readonly constants?: Readonly<Record<string, number>>;
  /** Operands without a gradient: indices [1, n, 1, 1], and fixed constants. */
  readonly index?: Readonly<Record<string, readonly number[]>>;
  readonly fixed?: Readonly<Record<string, readonly number[]>>;
  /** Operands whose gradients are computed. Default: all inputs and constants. */
  readonly of?: readonly string[];
  /** Returns the output of the reference; operands and output are in [n, c, h, w] order. */
  readonly f: (operands: Operands) => ArrayLike<number>;
}

const x: Shape = [6, 3, 7, 7];
const [c, n, h, w] = x;
const pixels = h * w;
const row: Shape = [c, n, 1, 1];
/**
 * Returns the row of an embedding (one number per channel and sample) that element k of a value shaped like x belongs
 * to.
 */
const rowOf = (k: number) => Math.floor(k / pixels);
const levels = [0.9, 0.4, 0.8, 0.1, 0.5, 0.8, -0.6, 1.2];
const table = Array.from({ length: 2 * c * pixels }, (_, k) => Math.sin(7 * k) * 1.5);
const noise = { kind: 'table', count: 2 } as const;
const eps = (index: number, element: number) => table[index * c * pixels + element]!;
const at = { level: [1, 0, 1], noise: [0, 1, 1] };

const cases: readonly Case[] = [
  {
    op: 'groupNorm',
    attributes: { groups: 2, eps: 1e-5, activation: 'silu' },
    inputs: { x, embedding: [2 * c, n, 1, 1] },
    constants: { gamma: c, beta: c },
    f: (o) =>
      referenceAffine(
        x,
        o.x!,
        referenceGroupNormAffine(
          { x, groups: 2, eps: 1e-5 },
          { x: o.x!, gamma: o.gamma!, beta: o.beta!, embedding: o.embedding! },
        ),
        'silu',
      ),
  },
  {
    op: 'groupNorm',
    attributes: { groups: 3, eps: 1e-5, activation: 'none' },
    inputs: { x },
    constants: { gamma: c, beta: c },
    f: (o) =>
      referenceAffine(
        x,
        o.x!,
        referenceGroupNormAffine({ x, groups: 3, eps: 1e-5 }, { x: o.x!, gamma: o.gamma!, beta: o.beta! }),
        'none',
      ),
  },
  {
    op: 'layerNorm',
    attributes: { eps: 1e-5 },
    inputs: { x, scale: row, shift: row },
    constants: { gamma: c, beta: c },
    f: (o) =>
      referenceLayerNorm({ x, eps: 1e-5 }, o.x!, o.gamma, o.beta).map(
        (v, k) => v * (1 + o.scale![rowOf(k)]!) + o.shift![rowOf(k)]!,
      ),
  },
  {
    op: 'layerNorm',
    attributes: { eps: 1e-5 },
    inputs: { x, scale: row, shift: row },
    f: (o) =>
      referenceLayerNorm({ x, eps: 1e-5 }, o.x!, undefined, undefined).map(
        (v, k) => v * (1 + o.scale![rowOf(k)]!) + o.shift![rowOf(k)]!,
      ),
  },
  ...(['qkv', 'kv', 'q'] as const).map(
    (of): Case => ({
      op: 'attention',
      attributes: { heads: 2, scale: 0.6 },
      inputs: { q: x, k: x, v: x },
      of: [...of],
      f: ({ q, k, v }) =>
        referenceAttention(
          { heads: 2, headDim: 3, n, queries: pixels, keys: pixels, scale: 0.6 },
          { q: q!, k: k!, v: v! },
        ),
    }),
  ),
  {
    op: 'attention',
    attributes: { heads: 2, scale: 0.6 },
    inputs: { q: x, k: [c, n, 1, 11], v: [c, n, 1, 11] },
    f: ({ q, k, v }) =>
      referenceAttention(
        { heads: 2, headDim: 3, n, queries: pixels, keys: 11, scale: 0.6 },
        { q: q!, k: k!, v: v! },
      ),
  },
  {
    op: 'activation',
    attributes: { activation: 'mish' },
    inputs: { x },
    f: (o) => o.x!.map((v) => referenceActivation('mish', v)),
  },
  {
    op: 'geglu',
    inputs: { x1: x, x2: x },
    f: (o) => o.x1!.map((v, k) => v * referenceActivation('gelu', o.x2![k]!)),
  },
  {
    op: 'add',
    attributes: { scale: 0.7 },
    inputs: { x1: x, x2: x },
    f: (o) => o.x1!.map((v, k) => 0.7 * (v + o.x2![k]!)),
  },
  { op: 'add', inputs: { x1: x, x2: x }, f: (o) => o.x1!.map((v, k) => v + o.x2![k]!) },
  { op: 'multiply', inputs: { x1: x, x2: x }, f: (o) => o.x1!.map((v, k) => v * o.x2![k]!) },
  {
    op: 'addRows',
    inputs: { x, embedding: row },
    f: (o) => o.x!.map((v, k) => v + o.embedding![rowOf(k)]!),
  },
  {
    op: 'gatedAdd',
    inputs: { x1: x, x2: x, gate: row },
    f: (o) => o.x1!.map((v, k) => v + o.gate![rowOf(k)]! * o.x2![k]!),
  },
  {
    op: 'addImage',
    inputs: { x },
    constants: { image: c * pixels },
    f: (o) => o.x!.map((v, k) => v + o.image![k % (c * pixels)]!),
  },
  {
    op: 'gather',
    attributes: { entries: 4, channels: 5 },
    inputs: {},
    index: { index: [2, 0, 2] },
    constants: { table: 20 },
    f: (o) => [2, 0, 2].flatMap((entry) => [...o.table!.slice(5 * entry, 5 * entry + 5)]),
  },
  {
    op: 'pickSamples',
    inputs: { x },
    index: { index: [2, 0, 2, 1, 2] },
    f: (o) => [2, 0, 2, 1, 2].flatMap((m) => [...o.x!.slice(m * c * pixels, (m + 1) * c * pixels)]),
  },
  {
    op: 'mix',
    attributes: { noise, image: [c, h, w] },
    inputs: { slots: [1, 2, 1, c * pixels] },
    index: { slot: [1, 0, 1], ...at },
    fixed: { levels, noises: table },
    f: (o) => referenceMix(x, o.slots!, levels, { slot: [1, 0, 1], ...at }, eps),
  },
  ...(['eps', 'x0'] as const).map(
    (residual): Case => ({
      op: 'errors',
      attributes: { noise, distance: 'huber', residual, channels: c },
      inputs: { prediction: [2 * c, n, h, w], xt: x },
      index: at,
      fixed: { levels, noises: table },
      f: (o) =>
        referenceErrors(
          'huber',
          { shape: [2 * c, n, h, w], values: o.prediction! },
          { shape: x, values: o.xt! },
          levels,
          { slot: [], ...at },
          eps,
          residual,
        ),
    }),
  ),
];

const constantOf = (name: string, values: Float32Array): Constant => ({
  name,
  length: values.length,
  values: async () => values,
});
const FAMILIES: readonly Family[] = ['plain', 'tile', 'subgroup'];

describe.each(FAMILIES)('backward of ops, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);
  afterAll(async () => (await device)?.close());

  it.for(cases.map((one, i) => ({ ...one, i })))('$op ($i)', async (one, { skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    const { op, attributes = {}, inputs, constants = {}, index = {}, fixed = {}, f } = one;
    const graph = newGraph();
    const operands: Record<string, Float32Array> = {};
    const fed: Record<string, ArrayLike<number>> = {};
    const bound: Parameters<typeof apply>[3] & object = {};
    const weights: Record<string, Constant> = {};
    let seed = 1;
    for (const [name, shape] of Object.entries(inputs)) {
      const values = randomValues(shape[0] * columns(shape), seed++);
      operands[name] = values;
      fed[name] = values;
      Object.assign(bound, { [name]: input(graph, name, shape) });
    }
    for (const [name, indices] of Object.entries(index)) {
      // Noise is given as rows of index and seed.
      const isNoise = name === 'noise';
      fed[name] = isNoise ? noiseKeys(indices, () => 0n) : Uint32Array.from(indices);
      Object.assign(bound, { [name]: input(graph, name, [1, indices.length, 1, isNoise ? 4 : 1]) });
    }
    for (const [name, length] of Object.entries(constants)) {
      const values = randomValues(length, seed++);
      operands[name] = values;
      weights[name] = constantOf(name, values);
    }
    for (const [name, numbers] of Object.entries(fixed))
      weights[name] = constantOf(name, Float32Array.from(numbers));
    const y = apply(graph, op, attributes as OpAttributes[typeof op], bound, weights);
    const dy = input(graph, 'dy', y.shape);
    const dyValues = randomValues(y.shape[0] * columns(y.shape), seed);
    fed.dy = dyValues;
    const checked = one.of ?? Object.keys(operands);
    const made = differentiate(graph, {
      seeds: [{ of: y, gradient: dy }],
      values: checked.filter((name) => name in inputs).map((name) => graph.inputs.get(name)!),
      constants: (name) => checked.includes(name) && name in constants,
    });
    for (const name of checked) {
      const gradient =
        name in inputs ? made.values.get(graph.inputs.get(name)!.id) : made.constants.get(name);
      // A gradient that is an input, passed on unchanged, cannot be an output.
      output(graph, name, apply(graph, 'scaled', { factor: 1 }, { x: gradient }));
    }
    const gradients = await runGraph(here, graph, fed);
    expect(Object.keys(gradients).sort()).toEqual([...checked].sort());
    expect(worstDerivative(f, operands, dyValues, gradients)).toBeLessThan(3e-5);
  });
});
