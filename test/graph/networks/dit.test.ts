// Tests whole DiTs against diffusers, with random weights and small sizes (from test/golden/dit.py).

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ModelError, ShapeError } from '../../../src/errors.ts';
import { input, newGraph, output } from '../../../src/graph/core/graph.ts';
import { parametersOf } from '../../../src/graph/files/parameters.ts';
import { dit, ditTensors, positionEmbedding } from '../../../src/graph/networks/dit.ts';
import { parseDitConfig, readDitConfig } from '../../../src/graph/networks/dit-config.ts';
import { TIME_ROW, timeRows } from '../../../src/graph/networks/time-embedding.ts';
import { fileAt } from '../../../src/graph/node/folder-files.ts';
import { openSafetensors } from '../../../src/graph/node/open-safetensors.ts';
import type { Family } from '../../../src/kernels/device/device.ts';
import type { WeightDtype } from '../../../src/kernels/device/routine.ts';
import { maxDifference, testDevice } from '../../kernels/harness.ts';
import { runGraph } from '../run-graph.ts';

const names = ['patch2', 'patch4'] as const;

/** Returns the largest difference from diffusers' output, relative to its largest value, over the golden samples. */
async function difference(
  name: (typeof names)[number],
  { family, weights = 'f32' }: { family?: Family; weights?: WeightDtype } = {},
): Promise<number> {
  const folder = join(import.meta.dirname, '..', '..', 'golden', `dit-${name}`);
  const config = await readDitConfig(...fileAt(join(folder, 'transformer', 'config.json')));
  const file = await openSafetensors(join(folder, 'transformer', 'diffusion_pytorch_model.safetensors'));
  const io = await openSafetensors(join(folder, 'io.safetensors'));
  const device = await testDevice(family ? { family } : {});
  let worst = 0;
  for (const key of ['0', '1']) {
    const [n, c, h, w] = io.tensors.get(`sample.${key}`)!.shape as [number, number, number, number];
    const graph = newGraph();
    const y = dit(graph, parametersOf(file, ditTensors(config)), config, {
      sample: input(graph, 'sample', [c, n, h, w]),
      time: input(graph, 'time', [256, n, 1, 1]),
      label: input(graph, 'label', [1, n, 1, 1]),
    });
    expect(y.shape).toEqual([config.outChannels, n, h, w]);
    output(graph, 'y', y);
    const inputs = {
      sample: await io.readF32(`sample.${key}`),
      time: timeRows(TIME_ROW, [...(await io.readF32(`timestep.${key}`))]),
      label: Uint32Array.from(await io.readF32(`class_labels.${key}`)),
    };
    const actual = await runGraph(device, graph, inputs, weights);
    const expected = await io.readF32(`output.${key}`);
    const scale = Math.max(...expected.map(Math.abs));
    worst = Math.max(worst, maxDifference(actual.y!, expected).difference / scale);
  }
  await Promise.all([file.close(), io.close()]);
  return worst;
}

describe('dit equals diffusers', () => {
  it.each(names)('%s', async (name) => {
    expect(await difference(name)).toBeLessThan(2e-5);
  });

  it.each(['plain', 'tile'] as const)('patch2, family %s', async (family) => {
    expect(await difference('patch2', { family })).toBeLessThan(2e-5);
  });

  it('with weights converted to f16', async () => {
    const found = await difference('patch4', { weights: 'f16' });
    expect(found).toBeLessThan(1e-2);
    expect(found).toBeGreaterThan(1e-6);
  });

  it('rejects a sample that does not consist of whole patches', () => {
    const graph = newGraph();
    const config = parseDitConfig({}, 'c');
    const values = {
      sample: input(graph, 'sample', [4, 1, 9, 8]),
      time: input(graph, 'time', [256, 1, 1, 1]),
      label: input(graph, 'label', [1, 1, 1, 1]),
    };
    const parameters = () => ({ name: 'w', length: 1, values: async () => new Float32Array(1) });
    expect(() => dit(graph, parameters, config, values)).toThrow(ShapeError);
  });
});

describe('ditTensors', () => {
  it.each(names)("are those of diffusers' %s", async (name) => {
    const folder = join(import.meta.dirname, '..', '..', 'golden', `dit-${name}`, 'transformer');
    const file = await openSafetensors(join(folder, 'diffusion_pytorch_model.safetensors'));
    await file.close();
    const recorded = ditTensors(await readDitConfig(...fileAt(join(folder, 'config.json'))));
    expect(Object.fromEntries(recorded.map(({ name, shape }) => [name, shape]))).toEqual(
      Object.fromEntries([...file.tensors].map(([name, { shape }]) => [name, shape])),
    );
  });
});

describe('positionEmbedding', () => {
  it('consists of sines and cosines of the column, then of the row', () => {
    const [rows, columns] = [2, 3];
    const at = (values: Float32Array, k: number, row: number, column: number) =>
      values[(k * rows + row) * columns + column];
    const values = positionEmbedding(8, [rows, columns], 3, 1);
    // a grid of 2 rows is spread over the range of 3 rows: the second row is at 1 / (2 / 3)
    expect(at(values, 0, 1, 2)).toBeCloseTo(Math.sin(2), 6);
    expect(at(values, 1, 1, 2)).toBeCloseTo(Math.sin(0.02), 6);
    expect(at(values, 2, 1, 2)).toBeCloseTo(Math.cos(2), 6);
    expect(at(values, 4, 1, 2)).toBeCloseTo(Math.sin(1.5), 6);
    expect(at(values, 7, 1, 2)).toBeCloseTo(Math.cos(0.015), 6);
    expect(at(positionEmbedding(8, [rows, columns], 3, 2), 0, 0, 2)).toBeCloseTo(Math.sin(1), 6);
  });
});

describe('parseDitConfig', () => {
  const old = {
    _class_name: 'Transformer2DModel',
    num_attention_heads: 16,
    attention_head_dim: 72,
    in_channels: 4,
    out_channels: 8,
    num_layers: 28,
    sample_size: 64,
    patch_size: 2,
    activation_fn: 'gelu-approximate',
    attention_bias: true,
    norm_type: 'ada_norm_zero',
    norm_elementwise_affine: false,
    num_embeds_ada_norm: 1000,
    cross_attention_dim: null,
    only_cross_attention: false,
  };
  const expected = {
    numAttentionHeads: 16,
    attentionHeadDim: 72,
    inChannels: 4,
    outChannels: 8,
    numLayers: 28,
    sampleSize: 64,
    patchSize: 2,
    numEmbedsAdaNorm: 1000,
    activation: 'gelu-tanh',
    attentionBias: true,
    normEps: 1e-5,
    normElementwiseAffine: false,
    interpolationScale: 1,
  };

  it('reads both classes to the same network', () => {
    expect(parseDitConfig(old, 'c')).toEqual(expected);
    const now = { _class_name: 'DiTTransformer2DModel', out_channels: 8, sample_size: 64 };
    expect(parseDitConfig(now, 'c')).toEqual(expected);
  });

  it('scales the positions of large samples only for the old class', () => {
    expect(parseDitConfig({ ...old, sample_size: 128 }, 'c').interpolationScale).toBe(2);
    const now = { _class_name: 'DiTTransformer2DModel', sample_size: 128 };
    expect(parseDitConfig(now, 'c').interpolationScale).toBe(1);
  });

  it.each<[what: string, config: Record<string, unknown>, message: string | RegExp]>([
    [
      'another class',
      { ...old, _class_name: 'PixArtTransformer2DModel' },
      'c: _class_name: expected DiTTransformer2DModel, got "PixArtTransformer2DModel"',
    ],
    [
      'another norm',
      { ...old, norm_type: 'ada_norm_single' },
      'c: norm_type: expected ada_norm_zero, got "ada_norm_single"',
    ],
    ['no patches', { ...old, patch_size: null }, 'c: patch_size: expected a number, got null'],
    [
      'no classes',
      { ...old, num_embeds_ada_norm: null },
      'c: num_embeds_ada_norm: expected a number, got null',
    ],
    [
      'cross attention',
      { ...old, cross_attention_dim: 768 },
      'c: the key "cross_attention_dim" with value 768 is unknown to this version',
    ],
    [
      'another activation',
      { ...old, activation_fn: 'geglu' },
      'c: activation_fn: expected gelu-approximate or gelu, got "geglu"',
    ],
    [
      'a sample that does not consist of whole patches',
      { ...old, sample_size: 33 },
      'c: sample_size 33 is not a multiple of patch_size 2',
    ],
    [
      'fewer channels out than in',
      { ...old, out_channels: 3 },
      'c: out_channels 3 is less than in_channels 4',
    ],
    [
      'a width without a position embedding',
      { ...old, num_attention_heads: 1, attention_head_dim: 6 },
      /^c: num_attention_heads · attention_head_dim: expected a multiple of 4 .*, got 6$/,
    ],
  ])('refuses %s', (_what, config, message) => {
    expect(() => parseDitConfig(config, 'c')).toThrow(ModelError);
    expect(() => parseDitConfig(config, 'c')).toThrow(message);
  });
});
