// Tests whole UNets against diffusers, with random weights and small sizes (from test/golden/make.py).

import { readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { apply, input, newGraph, output } from '../../../src/graph/core/graph.ts';
import { maxDifference, testDevice } from '../../kernels/harness.ts';
import { runGraph } from '../run-graph.ts';
import { goldens, goldenUNet } from './unet2d-golden.ts';

const refused = new Set(['fourier-skip']);
const names = readdirSync(goldens)
  .filter((name) => name.startsWith('unet2d-') && !name.includes('.'))
  .map((name) => name.slice('unet2d-'.length))
  .filter((name) => !refused.has(name));

/** Runs a golden's network on the device and returns its output [n, c, h, w] and the expected one. */
async function run(name: string, family?: 'plain' | 'tile') {
  const { graph, y, inputs, divisors, io, close } = await goldenUNet(name);
  output(graph, 'y', y);
  const device = await testDevice(family ? { family } : {});
  const { y: made } = await runGraph(device, graph, inputs);
  const each = made!.length / divisors.length;
  const actual = made!.map((value, i) => value / divisors[Math.floor(i / each)]!);
  const expected = await io.readF32('output');
  await close();
  return { actual, expected };
}

describe('unet2d equals diffusers', () => {
  for (const family of [undefined, 'plain', 'tile'] as const)
    it.each(names)(`%s, family ${family ?? 'of the device'}`, async (name) => {
      const { actual, expected } = await run(name, family);
      const scale = Math.max(...expected.map(Math.abs));
      expect(maxDifference(actual, expected).difference / scale).toBeLessThan(2e-5);
    });
});

describe('a graph that does not fit', () => {
  it('is rejected while it is built; the error names the op and both numbers', () => {
    const graph = newGraph();
    const x = input(graph, 'x', [8, 1, 4, 4]);
    const weight = { name: 'w', length: 4 * 4 * 9, values: async () => new Float32Array(144) };
    const attributes = { outChannels: 4, kernel: [3, 3], stride: 1, padding: [1, 1, 1, 1] } as const;
    expect(() => apply(graph, 'conv2d', attributes, { x }, { weight })).toThrow(
      'conv2d: expected weight with 288 values, got w with 144',
    );
  });
});
