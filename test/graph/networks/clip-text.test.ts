// Tests whole text encoders against transformers, with random weights and small sizes (from test/golden/cliptext.py).

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { input, newGraph, output } from '../../../src/graph/core/graph.ts';
import { parametersOf } from '../../../src/graph/files/parameters.ts';
import {
  clipText,
  clipTextTensors,
  embedTokens,
  withoutBuffers,
} from '../../../src/graph/networks/clip-text.ts';
import { readClipTextConfig } from '../../../src/graph/networks/clip-text-config.ts';
import { fileAt } from '../../../src/graph/node/folder-files.ts';
import { openSafetensors } from '../../../src/graph/node/open-safetensors.ts';
import type { Family } from '../../../src/kernels/device/device.ts';
import { fromChannelMajor, type Shape } from '../../../src/kernels/device/tensor.ts';
import { maxDifference, testDevice } from '../../kernels/harness.ts';
import { runGraph } from '../run-graph.ts';

const goldens = join(import.meta.dirname, '..', '..', 'golden');

async function open(name: string) {
  const folder = join(goldens, `cliptext-${name}`);
  const config = await readClipTextConfig(...fileAt(join(folder, 'config.json')));
  const weights = withoutBuffers(await openSafetensors(join(folder, 'model.safetensors')));
  const io = await openSafetensors(join(folder, 'io.safetensors'));
  const [n, tokens] = io.tensors.get('ids')!.shape as [number, number];
  const bytes = await io.read('ids');
  const all = [...new BigInt64Array(bytes.buffer)].map(Number);
  const ids = Array.from({ length: n }, (_, i) => Int32Array.from(all.slice(i * tokens, (i + 1) * tokens)));
  const expected = await io.readF32('last_hidden_state');
  return { config, weights, io, ids, tokens, expected };
}

/** Runs a golden's network and returns the last hidden state [n, tokens, hiddenSize] and the expected one. */
async function run(name: string, family: Family | undefined, weightDtype: 'f32' | 'f16' = 'f32') {
  const { config, weights, io, ids, tokens, expected } = await open(name);
  const device = await testDevice(family ? { family } : {});
  const shape: Shape = [config.hiddenSize, ids.length, tokens, 1];
  const graph = newGraph();
  const parameters = parametersOf(weights, clipTextTensors(config));
  output(graph, 'y', clipText(graph, parameters, config, input(graph, 'x', shape)).last);
  const x = fromChannelMajor(await embedTokens(weights, config, ids), shape);
  const { y } = await runGraph(device, graph, { x }, weightDtype);
  await Promise.all([weights.close(), io.close()]);
  const [c, n] = shape;
  const actual = new Float32Array(n * tokens * c);
  for (let s = 0; s < n; s++)
    for (let t = 0; t < tokens; t++)
      for (let i = 0; i < c; i++) actual[(s * tokens + t) * c + i] = y![(s * c + i) * tokens + t]!;
  return { actual, expected };
}

const relative = ({
  actual,
  expected,
}: {
  readonly actual: Float32Array;
  readonly expected: Float32Array;
}): number => maxDifference(actual, expected).difference / Math.max(...expected.map(Math.abs));

describe('clipText equals transformers', () => {
  for (const family of [undefined, 'plain', 'tile'] as const)
    it.each(['quick-gelu', 'gelu', 'gelu-new'])(`%s, family ${family ?? 'of the device'}`, async (name) => {
      expect(relative(await run(name, family))).toBeLessThan(2e-5);
    });

  it('gelu, weights in f16', async () => {
    expect(relative(await run('gelu', undefined, 'f16'))).toBeLessThan(5e-3);
  });
});

describe('embedTokens', () => {
  it('reads only the rows of the token table that the texts need', async () => {
    const { config, weights, io, ids } = await open('quick-gelu');
    const reads: number[] = [];
    const counted: typeof weights = {
      ...weights,
      readPart(name, from, into) {
        if (name.includes('token')) reads.push(from / config.hiddenSize);
        return weights.readPart(name, from, into);
      },
    };
    const text = Int32Array.of(48, 3, 7, 3, 49, 49);
    await embedTokens(counted, config, [text, Int32Array.of(48, 7, 1, 49, 49, 49)]);
    expect(reads.sort((a, b) => a - b)).toEqual([1, 3, 7, 48, 49]);
    await expect(embedTokens(weights, config, [Int32Array.of(48, 50)])).rejects.toThrow(
      /model\.safetensors: expected tokens below vocab_size 50, got token 50 from the tokenizer; take/,
    );
    await expect(embedTokens(weights, { ...config, maxPositionEmbeddings: 20 }, ids)).rejects.toThrow(
      /expected a text of at most 20 tokens \(max_position_embeddings\), got 77$/,
    );
    await Promise.all([weights.close(), io.close()]);
  });
});
