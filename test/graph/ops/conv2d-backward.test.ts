// Gradients of convolutions and dense layers: the reference against finite differences, and the device against the
// reference and against the adjoint of its own forward pass.

import { afterAll, describe, expect, it } from 'vitest';
import { ShapeError } from '../../../src/errors.ts';
import { differentiate } from '../../../src/graph/core/gradient.ts';
import { apply, input, newGraph, output } from '../../../src/graph/core/graph.ts';
import type { Constant } from '../../../src/graph/ops/value.ts';
import { type Conv2dOptions, outputSize } from '../../../src/kernels/conv2d/conv2d.ts';
import type { Device, Family } from '../../../src/kernels/device/device.ts';
import type { Shape } from '../../../src/kernels/device/tensor.ts';
import type { LinearOptions } from '../../../src/kernels/gemm/linear.ts';
import { type BackwardCase, cases } from '../../kernels/cases/conv2d-backward.ts';
import { maxDifference, randomValues, testDevice } from '../../kernels/harness.ts';
import { referenceConv2d, referenceConv2dBackward } from '../../reference/conv2d.ts';
import { referenceLinear, referenceLinearBackward } from '../../reference/linear.ts';
import { runGraph } from '../run-graph.ts';

const FAMILIES: readonly Family[] = ['plain', 'tile', 'subgroup'];
const EPS = 2 ** -23;
const deviceOf = (family: Family) => testDevice({ family }).catch(() => undefined);
afterAll(async () => {
  for (const family of FAMILIES) (await deviceOf(family))?.close();
});

const constant = (name: string, values: Float32Array): Constant => ({
  name,
  length: values.length,
  values: async () => values,
});
const size = ([c, n, h, w]: Shape) => c * n * h * w;
const dot = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((sum, v, i) => sum + v * b[i]!, 0);
const norm = (a: ArrayLike<number>) => Math.sqrt(dot(a, a));
type Values = Record<string, Float32Array<ArrayBuffer>>;

function convolutionValues(options: Conv2dOptions, shape: Shape): Values {
  const { x, outChannels, kernel } = options;
  return {
    x: randomValues(size(x), 1),
    weight: randomValues(outChannels * x[0] * kernel[0] * kernel[1], 2),
    bias: randomValues(outChannels, 3),
    embedding: randomValues(outChannels * x[1], 4),
    residual: randomValues(size(shape), 5),
    dy: randomValues(size(shape), 6),
  };
}

const resultOf = (options: Conv2dOptions): Shape => [
  options.outChannels,
  options.x[1],
  ...outputSize(options),
];

/**
 * Returns y and the gradients of all operands, on the device. The embedding and the residual are left out without
 * `additions`.
 */
async function convolve(device: Device, options: Conv2dOptions, values: Values, additions = true) {
  const { x: shape, outChannels, kernel, stride = 1, padding = [0, 0, 0, 0], scale } = options;
  const graph = newGraph();
  const y = resultOf(options);
  const x = input(graph, 'x', shape);
  const dy = input(graph, 'dy', y);
  const added = additions
    ? { embedding: input(graph, 'embedding', [y[0], y[1], 1, 1]), residual: input(graph, 'residual', y) }
    : {};
  const attributes = { outChannels, kernel, stride, padding, ...(scale ? { scale } : {}) };
  const made = apply(
    graph,
    'conv2d',
    attributes,
    { x, ...added },
    {
      weight: constant('weight', values.weight!),
      ...(additions ? { bias: constant('bias', values.bias!) } : {}),
    },
  );
  const gradients = differentiate(graph, {
    seeds: [{ of: made, gradient: dy }],
    values: [x, ...Object.values(added)],
    constants: () => true,
  });
  output(graph, 'y', made);
  for (const [name, value] of Object.entries({ x, ...added }))
    output(graph, `d ${name}`, gradients.values.get(value.id)!);
  for (const [name, value] of gradients.constants) output(graph, `d ${name}`, value);
  return runGraph(device, graph, values);
}

describe("the reference of a convolution's gradients", () => {
  const small = cases.filter(({ options: { x } }) => size(x) < 700);
  it.for(small)('against finite differences: $name', ({ options }) => {
    const values = convolutionValues(options, resultOf(options));
    const of = (changed: Values) =>
      dot(referenceConv2d({ ...options, embedding: true, residual: true }, changed as never), values.dy!);
    const gradients = referenceConv2dBackward(options, values as never, values.dy!);
    for (const [name, gradient] of Object.entries(gradients))
      for (const i of [0, 1, 2, 3].map((k) => (k * 37) % gradient.length)) {
        // y is linear in each operand: a difference over 1 is exact.
        const moved = (by: number) => {
          const changed = Float64Array.from(values[name]!);
          changed[i]! += by;
          return of({ ...values, [name]: changed as never });
        };
        expect(gradient[i]).toBeCloseTo((moved(0.5) - moved(-0.5)) / 1, 9);
      }
  });
});

describe.each(FAMILIES)('gradients of a convolution, %s', (family) => {
  const device = deviceOf(family);

  it.for(cases)('$name', async ({ options }: BackwardCase, { skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    const y = resultOf(options);
    const values = convolutionValues(options, y);
    const actual = await convolve(here, options, values);
    const expected = referenceConv2dBackward(options, values as never, values.dy!);
    const taps = options.kernel[0] * options.kernel[1];
    const terms = {
      x: y[0] * taps,
      weight: y[1] * y[2] * y[3],
      bias: y[1] * y[2] * y[3],
      embedding: y[2] * y[3],
      residual: 1,
    };
    for (const name of ['x', 'weight', 'bias', 'embedding', 'residual'] as const) {
      const { difference, index } = maxDifference(actual[`d ${name}`]!, expected[name]);
      // As in the forward pass, Winograd's transforms lose up to 8 bits.
      const bound = 2 * 256 * EPS * Math.sqrt(terms[name]) + 8 * EPS;
      expect(difference, `${name} at ${index}`).toBeLessThan(bound);
    }
  });

  it('is the adjoint of its forward pass', async ({ skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    for (const { name, options } of [cases[3]!, cases[6]!, cases[8]!, cases[13]!]) {
      const values = convolutionValues(options, resultOf(options));
      const actual = await convolve(here, options, values, false);
      const forward = dot(actual.y!, values.dy!);
      const scale = norm(actual.y!) * norm(values.dy!);
      expect(Math.abs(dot(values.x!, actual['d x']!) - forward) / scale, name).toBeLessThan(2e-6);
      expect(Math.abs(dot(values.weight!, actual['d weight']!) - forward) / scale, name).toBeLessThan(2e-6);
    }
  });
});

const layers = (
  [
    { x: [1, 1, 1, 1], outChannels: 1 },
    { x: [3, 3, 5, 3], outChannels: 5, activation: 'silu', scale: 0.7 },
    { x: [33, 5, 1, 13], outChannels: 30, activation: 'quick-gelu' },
    { x: [64, 3, 7, 7], outChannels: 192 },
    { x: [9, 1, 28, 28], outChannels: 17, scale: Math.SQRT1_2 },
    { x: [7, 3, 30, 31], outChannels: 6, activation: 'silu' },
  ] as readonly Partial<LinearOptions>[]
)
  .map((given) => ({ ...given, bias: true, residual: true, weights: 'f32' }) as LinearOptions)
  .map((options) => ({
    name: `${options.x[0]}->${options.outChannels} [${options.x}] ${options.activation ?? ''}${options.scale ? `, scale ${options.scale}` : ''}`,
    options,
  }));

function linearValues({ x, outChannels }: LinearOptions): Values {
  const results = outChannels * x[1] * x[2] * x[3];
  return {
    x: randomValues(size(x), 1),
    weight: randomValues(outChannels * x[0], 2),
    bias: randomValues(outChannels, 3),
    residual: randomValues(results, 4),
    dy: randomValues(results, 5),
  };
}

describe("the reference of a dense layer's gradients", () => {
  it.for(layers.slice(0, 3))('against finite differences: $name', ({ options }) => {
    const values = linearValues(options);
    const gradients = referenceLinearBackward(options, values as never, values.dy!);
    for (const [name, gradient] of Object.entries(gradients))
      for (const i of [0, 1, 2, 3].map((k) => (k * 7) % gradient.length)) {
        const moved = (by: number) => {
          const changed = Float64Array.from(values[name]!);
          changed[i]! += by;
          return dot(referenceLinear(options, { ...values, [name]: changed } as never), values.dy!);
        };
        expect(gradient[i]).toBeCloseTo((moved(1e-5) - moved(-1e-5)) / 2e-5, 6);
      }
  });
});

describe.each(FAMILIES)('gradients of a dense layer, %s', (family) => {
  const device = deviceOf(family);

  it.for(layers)('$name', async ({ options }, { skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    const { x: shape, outChannels, activation = 'none', scale = 1 } = options;
    const values = linearValues(options);
    const graph = newGraph();
    const y: Shape = [outChannels, shape[1], shape[2], shape[3]];
    const [x, residual, dy] = [input(graph, 'x', shape), input(graph, 'residual', y), input(graph, 'dy', y)];
    const constants = {
      weight: constant('weight', values.weight!),
      bias: constant('bias', values.bias!),
    };
    const made = apply(graph, 'linear', { outChannels, activation, scale }, { x, residual }, constants);
    const gradients = differentiate(graph, {
      seeds: [{ of: made, gradient: dy }],
      values: [x, residual],
      constants: () => true,
    });
    output(graph, 'd x', gradients.values.get(x.id)!);
    output(graph, 'd residual', gradients.values.get(residual.id)!);
    for (const [name, value] of gradients.constants) output(graph, `d ${name}`, value);
    const actual = await runGraph(here, graph, values);
    const expected = referenceLinearBackward(options, values as never, values.dy!);
    const columns = y[1] * y[2] * y[3];
    const terms = { x: outChannels, weight: columns, bias: columns, residual: 1 };
    for (const name of ['x', 'weight', 'bias', 'residual'] as const) {
      const { difference, index } = maxDifference(actual[`d ${name}`]!, expected[name]);
      expect(difference, `${name} at ${index}`).toBeLessThan(32 * EPS * Math.sqrt(terms[name]) + 8 * EPS);
    }
  });
});

describe('the gradient of a convolution', () => {
  it('is not computed if it is not needed', () => {
    const graph = newGraph();
    const x = input(graph, 'x', [4, 2, 8, 8]);
    const dy = input(graph, 'dy', [4, 2, 8, 8]);
    const weight = constant('weight', randomValues(144));
    const attributes = { outChannels: 4, kernel: [3, 3], stride: 1, padding: [1, 1, 1, 1] } as const;
    const y = apply(graph, 'conv2d', attributes, { x }, { weight });
    differentiate(graph, { seeds: [{ of: y, gradient: dy }], values: [x] });
    expect(graph.nodes.map(({ op }) => op)).toEqual(['conv2d', 'conv2d']);
  });
  it('is rejected if an upsampling is fused into it', () => {
    const graph = newGraph();
    const x = input(graph, 'x', [4, 2, 8, 8]);
    const dy = input(graph, 'dy', [4, 2, 16, 16]);
    const weight = constant('weight', randomValues(144));
    const attributes = { outChannels: 4, kernel: [3, 3], stride: 1, padding: [1, 1, 1, 1] } as const;
    // `fuse` creates such nodes; this one is written by hand.
    const y = { ...apply(graph, 'conv2d', attributes, { x }, { weight }), shape: dy.shape };
    graph.nodes[0] = { ...graph.nodes[0]!, attributes: { ...attributes, upsample: 2 }, output: y } as never;
    const options = { seeds: [{ of: y, gradient: dy }], values: [x] };
    expect(() => differentiate(graph, options)).toThrow(ShapeError);
  });
});
