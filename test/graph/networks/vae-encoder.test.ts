// Tests the encoder against diffusers, with random weights and small sizes (from test/golden/vae.py).

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { fuse } from '../../../src/graph/core/fuse.ts';
import { input, newGraph, output } from '../../../src/graph/core/graph.ts';
import { forward } from '../../../src/graph/core/plan.ts';
import { splitLarge } from '../../../src/graph/core/split.ts';
import type { Parameters } from '../../../src/graph/files/parameters.ts';
import { vaeEncoder, vaeEncoderParameters } from '../../../src/graph/networks/vae-encoder.ts';
import {
  parseVaeEncoderConfig,
  readVaeEncoderConfig,
  vaeDownscale,
} from '../../../src/graph/networks/vae-encoder-config.ts';
import { fileAt } from '../../../src/graph/node/folder-files.ts';
import { openSafetensors } from '../../../src/graph/node/open-safetensors.ts';
import type { Family } from '../../../src/kernels/device/device.ts';
import type { WeightDtype } from '../../../src/kernels/device/routine.ts';
import { type Shape, storageBytes } from '../../../src/kernels/device/tensor.ts';
import { product } from '../../../src/numbers.ts';
import { maxDifference, testDevice } from '../../kernels/harness.ts';
import { runGraph } from '../run-graph.ts';

const names = ['sd', 'conv', 'shift', 'plain'] as const;

/** Returns the largest difference from diffusers' latents, relative to the largest latent, over the golden images. */
async function difference(
  name: (typeof names)[number],
  { family, weights = 'f32' }: { family?: Family; weights?: WeightDtype } = {},
): Promise<number> {
  const folder = join(import.meta.dirname, '..', '..', 'golden', `vae-${name}`);
  const config = await readVaeEncoderConfig(...fileAt(join(folder, 'vae', 'config.json')));
  const file = await openSafetensors(join(folder, 'vae', 'diffusion_pytorch_model.safetensors'));
  const io = await openSafetensors(join(folder, 'io.safetensors'));
  const device = await testDevice(family ? { family } : {});
  let worst = 0;
  for (const key of ['0', '1']) {
    const [n, c, h, w] = io.tensors.get(`image.${key}`)!.shape as [number, number, number, number];
    const graph = newGraph();
    const image = input(graph, 'image', [c, n, h, w]);
    const latent = vaeEncoder(graph, vaeEncoderParameters(file, config), config, image);
    const f = vaeDownscale(config);
    const shape: Shape = [config.latentChannels, n, Math.floor(h / f), Math.floor(w / f)];
    expect(latent.shape).toEqual(shape);
    output(graph, 'latent', latent);
    const actual = await runGraph(device, graph, { image: await io.readF32(`image.${key}`) }, weights);
    const expected = await io.readF32(`latent.${key}`);
    const scale = Math.max(...expected.map(Math.abs));
    worst = Math.max(worst, maxDifference(actual.latent!, expected).difference / scale);
  }
  await Promise.all([file.close(), io.close()]);
  return worst;
}

describe('vaeEncoder equals diffusers', () => {
  it.each(names)('%s', async (name) => {
    expect(await difference(name)).toBeLessThan(2e-5);
  });

  it.each(['plain', 'tile'] as const)('sd, family %s', async (family) => {
    expect(await difference('sd', { family })).toBeLessThan(2e-5);
  });

  it('with weights converted to f16', async () => {
    const found = await difference('shift', { weights: 'f16' });
    expect(found).toBeLessThan(2e-3);
    expect(found).toBeGreaterThan(1e-6);
  });
});

describe('an encoder of images whose values are larger than a device binds', () => {
  const folder = join(import.meta.dirname, '..', '..', 'golden', 'vae-sd');
  /** Bytes of a binding: a quarter of the first values [8, 1, 144, 136] fits, and half of the next ones. */
  const LIMIT = 2 ** 18;

  it.each(['subgroup', 'plain', 'tile'] as const)(
    'equals diffusers in ranges of channels, family %s',
    async (family) => {
      const config = await readVaeEncoderConfig(...fileAt(join(folder, 'vae', 'config.json')));
      const file = await openSafetensors(join(folder, 'vae', 'diffusion_pytorch_model.safetensors'));
      const golden = await openSafetensors(join(folder, 'large.safetensors'));
      const whole = await testDevice({ family });
      const device = { ...whole, capabilities: { ...whole.capabilities, maxBindingBytes: LIMIT } };
      const graph = newGraph();
      const shape: Shape = [3, 1, 144, 136];
      const image = input(graph, 'image', shape);
      output(graph, 'latent', vaeEncoder(graph, vaeEncoderParameters(file, config), config, image));
      const [, , h, w] = shape;
      const pixels = Float32Array.from({ length: product(shape) }, (_, i) => {
        const [c, y, x] = [Math.floor(i / (h * w)), Math.floor(i / w) % h, i % w];
        return Math.sin(0.07 * (x + 2 * y) + c);
      });
      const split = splitLarge(graph, LIMIT);
      expect(split.nodes.length).toBeGreaterThan(graph.nodes.length);
      expect(
        Math.max(...split.nodes.map(({ output: { shape: of } }) => storageBytes(of))),
      ).toBeLessThanOrEqual(LIMIT);
      const { latent } = await runGraph(device, graph, { image: pixels });
      const expected = await golden.readF32('latent');
      const scale = Math.max(...expected.map(Math.abs));
      expect(maxDifference(latent!, expected).difference / scale).toBeLessThan(2e-5);
      await Promise.all([file.close(), golden.close()]);
    },
  );
});

describe('an encoder of the real size', () => {
  it.each(
    [512, 768, 1024].flatMap((side) =>
      (['subgroup', 'plain', 'tile'] as const).map((family) => [side, family] as const),
    ),
  )('takes images of %i pixels on a device that binds at most 128 MiB, family %s', async (side, family) => {
    const config = parseVaeEncoderConfig(
      {
        block_out_channels: [128, 256, 512, 512],
        down_block_types: Array.from({ length: 4 }, () => 'DownEncoderBlock2D'),
        layers_per_block: 2,
      },
      'c',
    );
    const graph = newGraph();
    const parameters: Parameters = (name, shape) => ({
      name,
      length: product(shape),
      values: async () => new Float32Array(0),
    });
    output(graph, 'latent', vaeEncoder(graph, parameters, config, input(graph, 'image', [3, 1, side, side])));
    const limit = 2 ** 27;
    const { capabilities } = await testDevice();
    const here = { ...capabilities, family, subgroupSize: 8, maxBindingBytes: limit };
    for (const node of fuse(splitLarge(graph, limit)).nodes) {
      const routine = forward(node, here, 'f32', false);
      expect(storageBytes(node.output.shape)).toBeLessThanOrEqual(limit);
      for (const bytes of Object.values(routine.scratch)) expect(bytes).toBeLessThanOrEqual(limit);
      for (const { bytes } of Object.values(routine.packing)) expect(bytes).toBeLessThanOrEqual(limit);
    }
  });
});
