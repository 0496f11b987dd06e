// Ops that resample, concatenate or slice are linear: on the device, <A x, dy> = <x, Aᵀ dy>.

import { afterAll, describe, expect, it } from 'vitest';
import { costOf } from '../../../src/graph/core/cost.ts';
import { differentiate } from '../../../src/graph/core/gradient.ts';
import { apply, type Graph, input, newGraph, output } from '../../../src/graph/core/graph.ts';
import type { Value } from '../../../src/graph/ops/value.ts';
import type { Family } from '../../../src/kernels/device/device.ts';
import type { Shape } from '../../../src/kernels/device/tensor.ts';
import { randomValues, testDevice } from '../../kernels/harness.ts';
import { runGraph } from '../run-graph.ts';

type Ops = Readonly<Record<string, (graph: Graph, x: Value, x2: Value) => Value>>;

const linear: Ops = {
  'upsampling to twice the size': (g, x) => apply(g, 'upsample', {}, { x }),
  'upsampling to a size': (g, x) => apply(g, 'upsample', { size: [17, 9] }, { x }),
  'average pooling': (g, x) => apply(g, 'averagePool', {}, { x }),
  concatenation: (g, x, x2) => apply(g, 'concat', {}, { x0: x, x1: x2, x2: x }),
  'a slice': (g, x) => apply(g, 'slice', { from: 1, count: 2 }, { x }),
  'slices that are concatenated again': (g, x, x2) => {
    const [x0, x1] = [0, 2].map((from) => apply(g, 'slice', { from, count: 2 }, { x })) as [Value, Value];
    return apply(g, 'concat', {}, { x0, x1: apply(g, 'add', {}, { x1: x0, x2: x1 }), x2 });
  },
  'depth to space': (g, x) => apply(g, 'depthToSpace', { block: 2 }, { x }),
  'sums over pixels': (g, x) => apply(g, 'sumPixels', {}, { x }),
  'padded channels': (g, x) => apply(g, 'padChannels', { from: 1, channels: 7 }, { x }),
  'the gradient of upsampling': (g, x) => apply(g, 'upsampleGradient', { size: [2, 3] }, { dy: x }),
  'the gradient of pooling': (g, x) =>
    apply(g, 'averagePoolGradient', { size: [2 * x.shape[2] + 1, 2 * x.shape[3]] }, { dy: x }),
};

const dot = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((sum, v, i) => sum + v * b[i]!, 0);
const size = ([c, n, h, w]: Shape) => c * n * h * w;

describe.each(['plain', 'tile'] as const)('adjoints, %s', (family: Family) => {
  const device = testDevice({ family }).catch(() => undefined);
  afterAll(async () => (await device)?.close());

  it.for(Object.entries(linear))('%s', async ([, make], { skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    for (const shape of [
      [4, 1, 7, 7],
      [4, 3, 7, 5],
      [4, 2, 28, 28],
    ] as const) {
      const graph = newGraph();
      const [x, x2] = [input(graph, 'x', shape), input(graph, 'x2', shape)];
      const y = make(graph, x, x2);
      const dy = input(graph, 'dy', y.shape);
      const { values } = differentiate(graph, { seeds: [{ of: y, gradient: dy }], values: [x, x2] });
      output(graph, 'y', y);
      output(graph, 'd x', values.get(x.id)!);
      const second = values.get(x2.id);
      if (second) output(graph, 'd x2', second);
      const inputs = {
        x: randomValues(size(shape), 1),
        x2: randomValues(size(shape), 2),
        dy: randomValues(size(y.shape), 3),
      };
      const actual = await runGraph(here, graph, inputs);
      const back = dot(inputs.x, actual['d x']!) + (second ? dot(inputs.x2, actual['d x2']!) : 0);
      const length = Math.sqrt(dot(actual.y!, actual.y!) * dot(inputs.dy, inputs.dy));
      expect(length).toBeGreaterThan(0);
      expect(Math.abs(back - dot(actual.y!, inputs.dy)) / length).toBeLessThan(1e-6);
    }
  });
});

describe('the gradient of pooling', () => {
  it('throws if dy does not have half the size', () => {
    const graph = newGraph();
    const dy = input(graph, 'dy', [4, 2, 7, 5]);
    expect(() => apply(graph, 'averagePoolGradient', { size: [15, 14] }, { dy })).toThrow(
      'expected dy of 7x7, half of 15x14, got [4, 2, 7, 5]',
    );
  });
});

describe('the cost of the backward pass', () => {
  it('is that of the forward pass for weights, none for copies, one per element for sums', () => {
    const graph = newGraph();
    const x = input(graph, 'x', [3, 2, 8, 6]);
    const dy = input(graph, 'dy', [5, 2, 4, 3]);
    const attributes = { kernel: [3, 3], stride: 2, padding: [1, 1, 1, 1] } as const;
    output(graph, 'dW', apply(graph, 'weightGradient', attributes, { x, dy }));
    output(graph, 'db', apply(graph, 'sumColumns', {}, { x: dy }));
    output(graph, 'padded', apply(graph, 'padChannels', { from: 1, channels: 9 }, { x }));
    expect([...costOf(graph).flopByOp]).toEqual([
      ['weightGradient', 2 * (5 * 2 * 4 * 3) * (3 * 3 * 3)],
      ['sumColumns', 5 * 2 * 4 * 3],
      ['padChannels', 0],
    ]);
  });
});
