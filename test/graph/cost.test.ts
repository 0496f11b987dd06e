// Tests the cost of a graph against sums computed by hand, and against the memory that a plan takes.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { costOf } from '../../src/graph/core/cost.ts';
import { apply, input, newGraph, output } from '../../src/graph/core/graph.ts';
import { plan } from '../../src/graph/core/plan.ts';
import { weightStore } from '../../src/graph/core/weight-store.ts';
import { trace } from '../../src/graph/evaluation/evaluation.ts';
import { type LoadedModel, loadModel } from '../../src/graph/models/open-model.ts';
import { folderFiles } from '../../src/graph/node/folder-files.ts';
import { type LinearAttributes, linearOp } from '../../src/graph/ops/linear.ts';
import type { Op } from '../../src/graph/ops/op.ts';
import type { Constant, Value } from '../../src/graph/ops/value.ts';
import { type Device, openDevice } from '../../src/kernels/device/device.ts';

const zeros = (name: string, length: number): Constant => ({
  name,
  length,
  values: async () => new Float32Array(length),
});

describe('operations', () => {
  it('of a convolution are 2 x outputs x (channels x kernel)', () => {
    const graph = newGraph();
    const x = input(graph, 'x', [3, 2, 8, 6]);
    const attributes = { outChannels: 5, kernel: [3, 3], stride: 2, padding: [1, 1, 1, 1] } as const;
    const y = apply(graph, 'conv2d', attributes, { x }, { weight: zeros('w', 135), bias: zeros('b', 5) });
    output(graph, 'y', y);
    expect(y.shape).toEqual([5, 2, 4, 3]);
    expect(costOf(graph)).toMatchObject({
      flop: 2 * (5 * 2 * 4 * 3) * (3 * 3 * 3),
      constants: 140,
      inputBytes: 4 * 3 * 96,
      activationBytes: 4 * 5 * 24,
    });
  });

  it('of a linear layer are 2 x outputs x inputs; equal constants count once', () => {
    const graph = newGraph();
    const x = input(graph, 'x', [7, 2, 3, 1]);
    const weight = zeros('w', 49);
    const once = apply(graph, 'linear', { outChannels: 7 }, { x }, { weight });
    output(graph, 'y', apply(graph, 'linear', { outChannels: 7 }, { x: once }, { weight }));
    expect(costOf(graph)).toMatchObject({ flop: 2 * (2 * 7 * 7 * 6), constants: 49 });
  });

  it('of attention are two products of queries and keys, and a softmax', () => {
    const graph = newGraph();
    const q = input(graph, 'q', [8, 2, 5, 1]);
    const [k, v] = ['k', 'v'].map((name) => input(graph, name, [8, 2, 3, 1])) as [typeof q, typeof q];
    output(graph, 'y', apply(graph, 'attention', { heads: 2, scale: 1 }, { q, k, v }));
    const products = 2 * 2 * (2 * 8 * 5 * 3);
    expect(costOf(graph).flop).toBe(products + 2 * (2 * 5 * 3));
  });

  it('of the gradients of attention are five products for all three operands, three for the queries alone', () => {
    const flopOf = (keys: number, of: 'q' | 'kv' | 'qkv') => {
      const graph = newGraph();
      const [q, dy] = ['q', 'dy'].map((name) => input(graph, name, [8, 2, 5, 1])) as [Value, Value];
      const [k, v] = ['k', 'v'].map((name) => input(graph, name, [8, 2, keys, 1])) as [Value, Value];
      apply(graph, 'attentionGradient', { heads: 2, scale: 1, of }, { q, k, v, dy });
      return costOf(graph).flop;
    };
    const softmax = (keys: number) => 2 * (2 * 5 * keys);
    expect(flopOf(5, 'qkv')).toBe(5 * 2 * (2 * 8 * 5 * 5) + softmax(5));
    expect(flopOf(3, 'q')).toBe(3 * 2 * (2 * 8 * 5 * 3) + softmax(3));
    expect(flopOf(3, 'kv')).toBe(4 * 2 * (2 * 8 * 5 * 3) + softmax(3));
  });

  it('are one per element for elementwise ops, none for copies', () => {
    const graph = newGraph();
    const x = input(graph, 'x', [4, 1, 2, 2]);
    const sum = apply(graph, 'add', {}, { x1: x, x2: x });
    const both = apply(graph, 'concat', {}, { x0: sum, x1: x });
    output(graph, 'y', apply(graph, 'slice', { from: 2, count: 4 }, { x: both }));
    const { flop, flopByOp } = costOf(graph);
    expect(flop).toBe(16);
    expect([...flopByOp]).toEqual([
      ['add', 16],
      ['concat', 0],
      ['slice', 0],
    ]);
  });
});

it('an op without a cost does not compile', () => {
  const { flop, ...rest } = linearOp;
  // @ts-expect-error: `flop` is missing.
  const forgotten: Op<LinearAttributes> = rest;
  expect(flop).toBeTypeOf('function');
  expect(forgotten.flop).toBeUndefined();
});

describe('memory', () => {
  it('counts the values that are alive at once: two in a chain, three with a skip connection', () => {
    const chain = (skip: boolean) => {
      const graph = newGraph();
      const x = input(graph, 'x', [4, 1, 4, 4]);
      const act = (value: typeof x) => apply(graph, 'activation', { activation: 'silu' }, { x: value });
      const first = act(x);
      const last = act(act(act(first)));
      output(graph, 'y', skip ? apply(graph, 'add', {}, { x1: first, x2: last }) : last);
      return costOf(graph).activationBytes;
    };
    expect(chain(false)).toBe(2 * 256);
    expect(chain(true)).toBe(3 * 256);
  });

  it('counts the parts of a concatenation as ranges of the whole', () => {
    const graph = newGraph();
    const x = input(graph, 'x', [4, 1, 4, 4]);
    const act = () => apply(graph, 'activation', { activation: 'silu' }, { x });
    output(graph, 'y', apply(graph, 'concat', {}, { x0: act(), x1: act() }));
    expect(costOf(graph).activationBytes).toBe(2 * 256);
  });
});

describe('the shipped model', () => {
  let device: Device;
  let model: LoadedModel;
  beforeAll(async () => {
    device = await openDevice();
    model = await loadModel(folderFiles('weights/fashion-mnist'));
  });
  afterAll(async () => {
    await model.close();
    device.close();
  });

  it('has the 144 MFLOP of convolutions and linear layers that its card states, and every weight', () => {
    const { flop, flopByOp, constants } = costOf(trace(model.network, model.evaluation, 1));
    const dense = flopByOp.get('conv2d')! + flopByOp.get('linear')!;
    expect(dense / 1e6).toBeCloseTo(144.5, 1);
    expect(flop / dense).toBeGreaterThan(1.01);
    expect(flop / dense).toBeLessThan(1.03);
    expect(constants).toBeGreaterThanOrEqual(717_505);
    expect(constants).toBeLessThan(717_505 * 1.01);
  });

  it('has a plan that takes this memory and the scratch memory of its kernels', async () => {
    const graph = trace(model.network, model.evaluation, 8);
    const weights = weightStore(device);
    const made = await plan(device, graph, { weights, weightDtype: 'f32' });
    const { activationBytes, inputBytes } = costOf(graph);
    const ratio = made.bytes / (activationBytes + inputBytes);
    made.destroy();
    weights.destroy();
    expect(ratio).toBeGreaterThan(0.95);
    expect(ratio).toBeLessThan(2.5); // Winograd's tiles are as large as the activations
  });
});
