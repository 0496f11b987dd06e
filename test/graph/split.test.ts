// Tests the splitting of large values into ranges of channels. That networks keep their results is tested with the
// autoencoder (networks/vae-encoder.test.ts).

import { describe, expect, it } from 'vitest';
import { apply, input, newGraph, output } from '../../src/graph/core/graph.ts';
import { splitLarge } from '../../src/graph/core/split.ts';
import { conv3x3, groupNorm, type Layers } from '../../src/graph/networks/layers.ts';
import { blockOf, rangeOf, table } from '../../src/graph/ops/value.ts';
import { product } from '../../src/numbers.ts';

/** A graph with weights of zeros. */
function layers(): Layers {
  return {
    graph: newGraph(),
    parameters: (name, shape) => table(name, new Float32Array(product(shape))),
  };
}

/** Bytes of a channel of the images below. */
const CHANNEL = 4 * 8 * 8;

describe('splitLarge', () => {
  it('leaves a graph as it is if every value fits', () => {
    const { graph, parameters } = layers();
    output(graph, 'y', conv3x3({ graph, parameters }, input(graph, 'x', [3, 5, 8, 8]), 'conv', 8));
    expect(splitLarge(graph, 8 * CHANNEL)).toBe(graph);
  });

  it('computes each range of outputs from all ranges of inputs', () => {
    const { graph, parameters } = layers();
    const h = conv3x3({ graph, parameters }, input(graph, 'x', [3, 1, 8, 8]), 'first', 8);
    const normed = groupNorm({ graph, parameters }, h, 'norm', { groups: 4, eps: 1e-5, activation: 'silu' });
    const next = conv3x3({ graph, parameters }, normed, 'second', 8);
    const sum = apply(graph, 'add', {}, { x1: next, x2: h });
    output(graph, 'y', conv3x3({ graph, parameters }, sum, 'last', 2));
    const split = splitLarge(graph, 4 * CHANNEL);
    const count = (op: string) => split.nodes.filter((node) => node.op === op).length;
    expect(split.nodes.every((node) => node.output.shape[0] <= 4)).toBe(true);
    expect([count('conv2d'), count('groupNorm'), count('add')]).toEqual([2 + 4 + 2, 2, 2]);
    expect(split.nodes.filter(({ op, constants }) => op === 'conv2d' && constants.bias)).toHaveLength(
      2 + 2 + 1,
    );
  });

  it('splits by the size of one sample, so that a sample is computed equally in any batch', () => {
    const nodes = (n: number) => {
      const { graph, parameters } = layers();
      const h = conv3x3({ graph, parameters }, input(graph, 'x', [3, n, 8, 8]), 'first', 8);
      output(graph, 'y', conv3x3({ graph, parameters }, h, 'last', 2));
      return splitLarge(graph, 4 * CHANNEL).nodes.map(({ op, output: { shape } }) => [op, shape[0]]);
    };
    expect(nodes(7)).toEqual(nodes(1));
  });

  it('leaves values whole that cannot be split, for the plan to refuse', () => {
    const { graph, parameters } = layers();
    const h = conv3x3({ graph, parameters }, input(graph, 'x', [3, 1, 8, 8]), 'first', 8);
    const normed = groupNorm({ graph, parameters }, h, 'norm', { groups: 1, eps: 1e-5, activation: 'silu' });
    output(graph, 'y', normed);
    const split = splitLarge(graph, 4 * CHANNEL);
    expect(split.outputs.get('y')!.shape).toEqual([8, 1, 8, 8]);
    expect(split.nodes.map(({ op }) => op)).toEqual(['conv2d', 'conv2d', 'concat', 'groupNorm']);
  });
});

describe('parts of constants', () => {
  const matrix = table(
    'm',
    Float32Array.from({ length: 24 }, (_, i) => i),
  );
  const readable = {
    ...matrix,
    read: async (from: number, into: Float32Array | Uint16Array) => {
      into.set((await matrix.values()).subarray(from, from + into.length));
    },
  };

  it.each([matrix, readable])('a block holds rows and columns of a matrix', async (constant) => {
    const block = blockOf(constant, 6, { rows: [1, 2], columns: [2, 3] });
    expect(block.length).toBe(6);
    expect([...(await block.values())]).toEqual([8, 9, 10, 14, 15, 16]);
  });

  it('a block is read from any element on', async () => {
    const block = blockOf(readable, 6, { rows: [1, 3], columns: [1, 4] });
    const all = [...(await block.values())];
    for (const [from, length] of [
      [0, 12],
      [3, 6],
      [5, 2],
      [11, 1],
    ] as const) {
      const into = new Float32Array(length);
      await block.read!(from, into);
      expect([...into]).toEqual(all.slice(from, from + length));
    }
  });

  it('a range holds successive values', async () => {
    expect([...(await rangeOf(matrix, 5, 3).values())]).toEqual([5, 6, 7]);
    const into = new Float32Array(2);
    await rangeOf(readable, 5, 3).read!(1, into);
    expect([...into]).toEqual([6, 7]);
  });

  it('have distinct names', () => {
    const names = [
      blockOf(matrix, 6, { rows: [0, 2], columns: [0, 3] }),
      blockOf(matrix, 6, { rows: [2, 2], columns: [0, 3] }),
      blockOf(matrix, 6, { rows: [0, 2], columns: [3, 3] }),
      blockOf(matrix, 12, { rows: [0, 2], columns: [0, 3] }),
      rangeOf(matrix, 0, 6),
    ].map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
  });
});
