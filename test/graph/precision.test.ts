// Tests which values a plan stores as f16, what that does to its memory, and plans that mix both types.

import { describe, expect, it } from 'vitest';
import { costOf } from '../../src/graph/core/cost.ts';
import { fuse } from '../../src/graph/core/fuse.ts';
import { apply, concatenate, type Graph, input, newGraph, output } from '../../src/graph/core/graph.ts';
import { layout } from '../../src/graph/core/layout.ts';
import { storedTypes } from '../../src/graph/core/precision.ts';
import { trace } from '../../src/graph/evaluation/evaluation.ts';
import { loadModel } from '../../src/graph/models/open-model.ts';
import { folderFiles } from '../../src/graph/node/folder-files.ts';
import { opOf } from '../../src/graph/ops/table.ts';
import type { Value } from '../../src/graph/ops/value.ts';
import { columns } from '../../src/kernels/device/tensor.ts';
import { maxDifference, randomValues, testDevice } from '../kernels/harness.ts';
import { runGraph } from './run-graph.ts';

/** Returns the fused graph of an evaluation of a shipped model. */
async function evaluation(name: string): Promise<Graph> {
  const { network, evaluation: options, close } = await loadModel(folderFiles(`weights/${name}`));
  await close();
  return fuse(trace(network, options, 4));
}

const constant = (name: string, length: number, seed: number) => ({
  name,
  length,
  values: async () => randomValues(length, seed),
});

describe('storage of values in f16', () => {
  it.each(['fashion-mnist', 'fashion-mnist-multi-head', 'cifar-10'])(
    '%s: what decides between candidates is f32, the rest f16',
    async (name) => {
      const graph = await evaluation(name);
      const stored = storedTypes(graph, 'f16');
      const errors = graph.nodes.find(({ op }) => op === 'errors')!;
      const maker = (value: Value) => graph.nodes.find(({ output: { id } }) => id === value.id)!;
      for (const value of [errors.inputs.prediction!, errors.inputs.xt!, errors.output])
        expect(stored(value.id)).toBe('f32');
      // The heads of a multi-head network, and the view that samples share, are moved to become such a value.
      for (const operand of ['prediction', 'xt']) {
        const { op, inputs } = maker(errors.inputs[operand]!);
        if (op === 'pickHead' || op === 'pickSamples') expect(stored(inputs.x!.id)).toBe('f32');
      }
      for (const { id } of graph.inputs.values()) expect(stored(id)).toBe('f32');
      const rows = graph.nodes.filter(({ output: { shape } }) => columns(shape) === shape[1]);
      expect(rows.length).toBeGreaterThan(5); // time embeddings, and rows of group norms
      for (const node of rows) expect(stored(node.output.id), node.op).toBe('f32');
      const maps = graph.nodes.filter(
        ({ op, output: { shape } }) =>
          ['conv2d', 'attention', 'linear'].includes(op) && shape[0] > 3 && shape[2] > 1,
      );
      expect(maps.filter((node) => stored(node.output.id) === 'f16').length).toBeGreaterThan(
        0.9 * maps.length - 2,
      );
      const all = storedTypes(graph, 'f32');
      for (const node of graph.nodes) expect(all(node.output.id)).toBe('f32');
    },
  );

  it('values that share memory have one type, and offsets follow it', async () => {
    const graph = await evaluation('fashion-mnist');
    const stored = storedTypes(graph, 'f16');
    const { locations, views } = layout(graph, 16, { stored });
    const exact = layout(graph, 16);
    let halved = 0;
    for (const node of graph.nodes)
      for (const { id } of [node.output, ...Object.values(node.inputs)]) {
        const { root, offset } = locations.get(id)!;
        expect(stored(id)).toBe(stored(root));
        expect(offset % 16).toBe(0);
        const before = exact.locations.get(id)!;
        if (offset > 0 && before.root === root && stored(id) === 'f16') {
          expect(offset).toBe(before.offset / 2);
          halved++;
        }
      }
    expect(halved).toBeGreaterThan(3);
    expect([...views].filter((node) => opOf(node).joinsInputs).length).toBeGreaterThan(3);
  });

  it('halves the memory of activations', async () => {
    for (const name of ['fashion-mnist', 'cifar-10']) {
      const graph = await evaluation(name);
      const share = costOf(graph, 'f16').activationBytes / costOf(graph).activationBytes;
      expect(share).toBeGreaterThan(0.49);
      expect(share).toBeLessThan(0.6);
    }
  });

  it('runs plans that mix both types', async ({ skip }) => {
    const device = await testDevice();
    if (!device.capabilities.f16) return skip('this adapter has no f16');
    const graph = newGraph();
    const x = input(graph, 'x', [8, 3, 6, 5]);
    const attributes = { outChannels: 8, kernel: [3, 3], stride: 1, padding: [1, 1, 1, 1] } as const;
    const weight = (name: string, inputs: number, seed: number) => ({
      weight: constant(name, 8 * inputs * 9, seed),
    });
    const h = apply(graph, 'conv2d', attributes, { x }, weight('first', 8, 1));
    // A concatenation of an input, which is f32, and of f16; slices of it; a row of means; an output that is read again.
    const whole = concatenate(graph, [h, x]);
    const part = apply(graph, 'slice', { from: 4, count: 8 }, { x: whole });
    const row = apply(graph, 'sumPixels', {}, { x: part });
    const shifted = apply(graph, 'addRows', {}, { x: part, embedding: row });
    const y = apply(
      graph,
      'conv2d',
      attributes,
      { x: concatenate(graph, [shifted, h]) },
      weight('second', 16, 2),
    );
    output(graph, 'h', shifted);
    output(graph, 'y', y);
    const inputs = { x: randomValues(8 * 3 * 30, 3) };
    const exact = await runGraph(device, graph, inputs);
    const half = await runGraph(device, graph, inputs, 'f32', 'f16');
    for (const name of ['h', 'y']) {
      const scale = Math.max(...exact[name]!.map(Math.abs));
      const { difference } = maxDifference(half[name]!, exact[name]!);
      expect(difference / scale).toBeLessThan(2e-3);
      expect(difference).toBeGreaterThan(0);
    }
  });
});
