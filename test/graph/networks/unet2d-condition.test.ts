// Tests whole UNet2DConditionModels against diffusers, with random weights and small sizes (from
// test/golden/unet2dcondition.py), on five samples of two views, each with its own prompt.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { fuse } from '../../../src/graph/core/fuse.ts';
import { apply, type Graph, input, newGraph, output } from '../../../src/graph/core/graph.ts';
import { type Parameters, parametersOf } from '../../../src/graph/files/parameters.ts';
import type { TensorFile } from '../../../src/graph/files/safetensors.ts';
import { timeRowLength, timeRows } from '../../../src/graph/networks/time-embedding.ts';
import {
  crossAttentions,
  keysAndValues,
  unet2dCondition,
  unet2dConditionShared,
  unet2dConditionTensors,
} from '../../../src/graph/networks/unet2d-condition.ts';
import {
  parseUNet2DConditionConfig,
  readUNet2DConditionConfig,
} from '../../../src/graph/networks/unet2d-condition-config.ts';
import { fileAt } from '../../../src/graph/node/folder-files.ts';
import { openSafetensors } from '../../../src/graph/node/open-safetensors.ts';
import type { WeightDtype } from '../../../src/kernels/device/routine.ts';
import { product } from '../../../src/numbers.ts';
import { maxDifference, testDevice } from '../../kernels/harness.ts';
import { runGraph } from '../run-graph.ts';

const goldens = join(import.meta.dirname, '..', '..', 'golden');
const prefix = 'unet2dcondition-';
const names = readdirSync(goldens)
  .filter((name) => name.startsWith(prefix) && !name.includes('.'))
  .map((name) => name.slice(prefix.length));

async function integers(file: TensorFile, name: string): Promise<number[]> {
  const bytes = await file.read(name);
  return [...new BigInt64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8)].map(Number);
}

type Sizes = readonly [number, number, number, number];

/** Returns the network of a golden file as one graph, with its inputs. */
async function traced(name: string) {
  const folder = join(goldens, `${prefix}${name}`);
  const config = await readUNet2DConditionConfig(...fileAt(join(folder, 'config.json')));
  const weights = await openSafetensors(join(folder, 'diffusion_pytorch_model.safetensors'));
  const io = await openSafetensors(join(folder, 'io.safetensors'));
  const [p, c, h, w] = io.tensors.get('sample')!.shape as unknown as Sizes;
  const [n, tokens, dim] = io.tensors.get('context')!.shape as readonly number[] as [number, number, number];

  const graph = newGraph();
  const parameters = parametersOf(weights, unet2dConditionTensors(config));
  const context = input(graph, 'context', [dim, n, tokens, 1]);
  const view = input(graph, 'view', [1, n, 1, 1]);
  const values = unet2dConditionShared(graph, parameters, config, {
    sample: input(graph, 'sample', [c, p, h, w]),
    time: input(graph, 'time', [timeRowLength(config), p, 1, 1]),
  });
  const layers = crossAttentions(config);
  const calls: string[] = [];
  const y = unet2dCondition(graph, parameters, config, {
    shared: values.map((x) => apply(graph, 'pickSamples', {}, { x, index: view })),
    crossAttention(layer, inner) {
      calls.push(layer);
      return keysAndValues(graph, parameters, { name: layer, inner }, context);
    },
  });
  output(graph, 'y', y);

  const tokensLast = await io.readF32('context');
  const inputs = async () => ({
    sample: await io.readF32('sample'),
    time: timeRows(config, await integers(io, 'timestep')),
    view: Uint32Array.from(await integers(io, 'view')),
    context: tokensLast.map((_, i) => {
      const [sample, at] = [Math.floor(i / (dim * tokens)), i % (dim * tokens)];
      const [channel, token] = [Math.floor(at / tokens), at % tokens];
      return tokensLast[(sample * tokens + token) * dim + channel]!;
    }),
  });
  const close = () => Promise.all([weights.close(), io.close()]);
  return { graph, config, layers, calls, values, weights, io, inputs, close };
}

async function run(name: string, family?: 'plain' | 'tile', dtype: WeightDtype = 'f32') {
  const { graph, inputs, io, close } = await traced(name);
  const device = await testDevice(family ? { family } : {});
  const { y } = await runGraph(device, graph, await inputs(), dtype);
  const expected = await io.readF32('output');
  await close();
  return maxDifference(y!, expected).difference / Math.max(...expected.map(Math.abs));
}

describe('unet2dCondition equals diffusers', () => {
  it.each(names)('%s', async (name) => {
    expect(await run(name)).toBeLessThan(2e-5);
  });
  it.each(['plain', 'tile'] as const)('sd2, family %s', async (family) => {
    expect(await run('sd2', family)).toBeLessThan(2e-5);
  });
  it('odd, with its f32 weights converted to f16', async () => {
    const difference = await run('odd', undefined, 'f16');
    expect(difference).toBeLessThan(5e-3);
    expect(difference).toBeGreaterThan(1e-6);
  });
});

describe('the graph', () => {
  it.each(names)(
    'of %s binds every tensor of the file, and requests each cross-attention once',
    async (name) => {
      const { graph, layers, calls, weights, close } = await traced(name);
      const sizes = new Map(
        [...weights.tensors].map(([tensor, { shape }]) => [tensor, shape.reduce((a, b) => a * b, 1)]),
      );
      const constants = graph.nodes.flatMap((node) => Object.values(node.constants));
      const distinct = new Map(constants.map((constant) => [constant.name, constant.length]));
      const bound = new Map<string, number>();
      for (const [whole, length] of distinct) {
        if (whole.startsWith('centring')) continue;
        const joined = whole.split('+');
        for (const part of joined) {
          const tensor = part.replace(/\[\d+:\d+\]$/, '');
          const count = joined.length > 1 ? sizes.get(tensor)! : length;
          bound.set(tensor, (bound.get(tensor) ?? 0) + count);
        }
      }
      expect(bound).toEqual(sizes);
      expect(calls).toEqual(layers.map((layer) => layer.name));
      await close();
    },
  );

  const ops = (graph: Graph, op: string) => graph.nodes.filter((node) => node.op === op);

  it('shares everything up to the first cross-attention', async () => {
    const first = async (name: string) => {
      const { graph, layers, values, close } = await traced(name);
      await close();
      const cut = graph.nodes.findIndex(({ op }) => op === 'pickSamples');
      const shared = graph.nodes.slice(0, cut).flatMap((node) => Object.values(node.constants));
      return { first: layers[0]!.name, last: shared.at(-1)!.name, values: values.length };
    };
    const block = (name: string) => `${name}.transformer_blocks.0`;
    const down = block('down_blocks.0.attentions.0');
    expect(await first('sd1')).toEqual({
      first: `${down}.attn2`,
      last: `${down}.attn2.to_q.weight`,
      values: 5,
    });
    expect(await first('only-cross')).toEqual({
      first: `${down}.attn1`,
      last: `${down}.attn1.to_q.weight`,
      values: 5,
    });
    const up = block('up_blocks.1.attentions.0');
    expect(await first('late')).toEqual({ first: `${up}.attn2`, last: `${up}.attn2.to_q.weight`, values: 5 });
  });

  it('has no separate additions and no separate upsampling by two after fusion', async () => {
    for (const name of names) {
      const { graph, close } = await traced(name);
      await close();
      const fused = fuse(graph);
      expect(ops(fused, 'add')).toEqual([]);
      expect(ops(fused, 'addRows')).toEqual([]);
      if (name !== 'odd') expect(ops(fused, 'upsample')).toEqual([]);
    }
  });

  it('rejects prompts of another width', () => {
    const config = parseUNet2DConditionConfig({ _class_name: 'UNet2DConditionModel' }, 'c');
    const graph = newGraph();
    const shapes = new Map(unet2dConditionTensors(config).map(({ name, shape }) => [name, shape]));
    const parameters: Parameters = (name) => {
      const length = product(shapes.get(name)!);
      return { name, length, values: async () => new Float32Array(length) };
    };
    const context = input(graph, 'context', [768, 1, 77, 1]);
    expect(() => keysAndValues(graph, parameters, crossAttentions(config)[0]!, context)).toThrow(
      'linear: expected weight with 245760 values, got down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight with 409600',
    );
  });
});
