// Gradients within a budget of memory: tests which values are kept and which are recomputed, and that the results are
// equal.

import { describe, expect, it } from 'vitest';
import { costOf } from '../../src/graph/core/cost.ts';
import { fuse } from '../../src/graph/core/fuse.ts';
import { differentiate } from '../../src/graph/core/gradient.ts';
import { apply, type Graph, input, newGraph, output } from '../../src/graph/core/graph.ts';
import { plan } from '../../src/graph/core/plan.ts';
import { weightStore } from '../../src/graph/core/weight-store.ts';
import type { Constant, Value } from '../../src/graph/ops/value.ts';
import { maxDifference, randomValues, testDevice } from '../kernels/harness.ts';
import { runGraph } from './run-graph.ts';

const C = 16;
const BLOCKS = 8;

const constant = (name: string, length: number, scale: number): Constant => ({
  name,
  length,
  values: async () => randomValues(length, name.length + length).map((value) => scale * value),
});

function convolved(graph: Graph, x: Value, name: string): Value {
  const normed = apply(
    graph,
    'groupNorm',
    { groups: 4, eps: 1e-5, activation: 'silu' },
    { x },
    { gamma: constant(`${name} gamma`, C, 1), beta: constant(`${name} beta`, C, 1) },
  );
  const attributes = { outChannels: C, kernel: [3, 3], stride: 1, padding: [1, 1, 1, 1] } as const;
  const weight = constant(`${name} weight`, C * C * 9, 0.2);
  return apply(graph, 'conv2d', attributes, { x: normed }, { weight, bias: constant(`${name} bias`, C, 1) });
}

/**
 * Returns a differentiated graph: residual blocks of two convolutions, whose output is concatenated with that of the
 * first.
 */
function network(bytes?: number, constants: (name: string) => boolean = () => false) {
  const graph = newGraph();
  const x = input(graph, 'x', [C, 2, 12, 12]);
  let h: Value = x;
  let first: Value | undefined;
  for (let block = 0; block < BLOCKS; block++) {
    const inner = convolved(graph, convolved(graph, h, `${block} first`), `${block} second`);
    h = apply(graph, 'add', {}, { x1: inner, x2: h });
    first ??= h;
  }
  const y = apply(graph, 'concat', {}, { x0: h, x1: first });
  output(graph, 'y', y);
  const dy = input(graph, 'dy', y.shape);
  const made = differentiate(graph, { seeds: [{ of: y, gradient: dy }], values: [x], constants, bytes });
  output(graph, 'dx', made.values.get(x.id)!);
  for (const [name, value] of made.constants) output(graph, name, value);
  return graph;
}

const run = async (graph: Graph) => {
  const sizes = [...graph.inputs].map(([name, { shape }]) => [
    name,
    randomValues(
      shape.reduce((product, side) => product * side, 1),
      name.length,
    ),
  ]);
  return runGraph(await testDevice(), graph, Object.fromEntries(sizes));
};
const count = (graph: Graph, op: string) => graph.nodes.filter((node) => node.op === op).length;

describe('a budget for activations', () => {
  const whole = costOf(network());

  it.each([0.75, 0.6])(
    'of a share of %s is kept, by recomputing less than the forward pass',
    async (share) => {
      const budget = Math.floor(share * whole.activationBytes);
      const graph = network(budget);
      const { activationBytes, flop } = costOf(graph);
      expect(activationBytes).toBeLessThanOrEqual(budget);
      expect(activationBytes).toBeGreaterThan(0);
      expect(flop / whole.flop).toBeGreaterThan(1);
      expect(flop / whole.flop).toBeLessThan(1.5);
      const [actual, expected] = [await run(graph), await run(network())];
      expect(actual).toEqual(expected);
    },
  );

  it('reduces the memory of a plan', async () => {
    const device = await testDevice();
    const weights = weightStore(device);
    const bytes: number[] = [];
    for (const graph of [network(), network(0.6 * whole.activationBytes)]) {
      const made = await plan(device, graph, { weights, weightDtype: 'f32' });
      bytes.push(made.bytes);
      made.destroy();
    }
    weights.destroy();
    expect(bytes[1]! / bytes[0]!).toBeLessThan(0.8);
  });

  it('that is too small is exceeded by little, and no node runs more than twice', () => {
    const { activationBytes, flop } = costOf(network(1));
    expect(activationBytes).toBeLessThan(0.6 * whole.activationBytes);
    expect(flop / whole.flop).toBeLessThan(1.51);
  });

  it('that suffices changes nothing', () => {
    expect(network(whole.activationBytes).nodes.length).toBe(network().nodes.length);
  });
});

describe('gradients of weights', () => {
  const weights = (name: string) => name.endsWith('weight');

  it('recompute the norms that convolutions apply in their loads, which stay there in the forward pass', () => {
    const graph = network(undefined, weights);
    const fused = fuse(graph);
    expect(count(fused, 'groupNormAffine')).toBe(2 * BLOCKS);
    expect(count(fused, 'groupNorm')).toBe(2 * BLOCKS);
    expect(count(fuse(network()), 'groupNorm')).toBe(0);
  });

  it('are the same within a budget', async () => {
    const all = network(undefined, weights);
    const budget = 0.8 * costOf(all).activationBytes;
    const some = network(budget, weights);
    expect(costOf(some).activationBytes).toBeLessThanOrEqual(budget);
    const [actual, expected] = [await run(some), await run(all)];
    for (const [name, values] of Object.entries(expected)) {
      const largest = Math.max(...values.map(Math.abs));
      expect(maxDifference(actual[name]!, values).difference / largest, name).toBeLessThan(1e-5);
    }
  });
});

describe('slices', () => {
  it('that cover a value give its gradient as a concatenation, without additions', () => {
    const graph = newGraph();
    const x = input(graph, 'x', [12, 2, 4, 4]);
    const attributes = { activation: 'silu' } as const;
    const act = (value: Value) => apply(graph, 'activation', attributes, { x: value });
    const z = act(x);
    const parts = [0, 4, 8].map((from) => act(apply(graph, 'slice', { from, count: 4 }, { x: z })));
    const y = apply(graph, 'concat', {}, { x0: parts[2], x1: parts[0], x2: parts[1] });
    const dy = input(graph, 'dy', y.shape);
    const { values } = differentiate(graph, { seeds: [{ of: y, gradient: dy }], values: [x] });
    output(graph, 'dx', values.get(x.id)!);
    const fused = fuse(graph);
    expect(count(fused, 'padChannels')).toBe(0);
    expect(count(fused, 'add')).toBe(0);
    expect(count(fused, 'concat')).toBe(1);
  });
});
