// Tests evaluations in f16 against those in f32: pipelines with random weights of every family, a UNet of Stable
// Diffusion's shape, and the shipped models. test/precision-labels.gpu.test.ts compares labels of 2,000 images.

import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { randomParameters } from '../../bench/device/random-weights.ts';
import { apply, input, output } from '../../src/graph/core/graph.ts';
import { ALLOWED } from '../../src/graph/evaluation/agreement.ts';
import { denoiser } from '../../src/graph/evaluation/denoiser.ts';
import type { Network } from '../../src/graph/evaluation/evaluation.ts';
import type { Model } from '../../src/graph/model.ts';
import { lookUp } from '../../src/graph/networks/layers.ts';
import { timeTable } from '../../src/graph/networks/time-embedding.ts';
import {
  keysAndValues,
  unet2dCondition,
  unet2dConditionShared,
} from '../../src/graph/networks/unet2d-condition.ts';
import { parseUNet2DConditionConfig } from '../../src/graph/networks/unet2d-condition-config.ts';
import { shippedNames, shippedPath } from '../../src/graph/node/model-path.ts';
import { openModel } from '../../src/graph/node/open-model.ts';
import { openDevice } from '../../src/kernels/device/device.ts';
import { RUNS_ON } from '../../src/kernels/device/families.ts';
import { createStorage } from '../../src/kernels/device/runtime.ts';
import { prepareImage } from '../../src/pipeline/images/prepare.ts';
import { decodeFile } from '../../src/pipeline/node/decode.ts';
import { maxDifference, randomValues, testDevice } from '../kernels/harness.ts';
import { compareInBoth } from './compare-precisions.ts';
import { edmGolden, imageOf, writeEdmFolder } from './edm-folder.ts';
import { goldens, goldenUNet } from './networks/unet2d-golden.ts';
import { runGraph } from './run-graph.ts';

const { f16 } = (await testDevice()).capabilities;
const shipped = await shippedNames();
const samples = join(shippedPath('fashion-mnist'), 'samples');

/** Returns the first images of a folder as a model takes them. */
const imagesIn = (folder: string, count: number) => async (model: Model) => {
  const names = (await readdir(folder)).sort().slice(0, count);
  return Promise.all(
    names.map(async (name) =>
      prepareImage(await decodeFile(join(folder, name)), model.inputShape, { crop: model.crop }),
    ),
  );
};

describe('f16 against f32', () => {
  beforeEach(({ skip }) => skip(!f16, 'this adapter has no f16'));

  it.each(['ddpm', 'resnet-blocks', 'attn-conv', 'table'])('pixel network %s: predictions', async (name) => {
    const device = await testDevice();
    const { graph, y, inputs, close } = await goldenUNet(name);
    output(graph, 'y', y);
    const exact = (await runGraph(device, graph, inputs)).y!;
    const half = (await runGraph(device, graph, inputs, 'f16', 'f16')).y!;
    await close();
    const scale = Math.max(...exact.map(Math.abs));
    const { difference } = maxDifference(half, exact);
    expect(difference / scale).toBeLessThan(1e-2);
    expect(difference).toBeGreaterThan(0);
  });

  // These networks have 8 to 24 channels and norms over as few as 8 numbers, which magnify some roundings (`storedTypes` has
  // figures). Single errors of sd1 and v change by more than a model's check allows: of 1,200 by up to 7.8e-3 and 6.0e-3,
  // with root mean squares of 8.5e-4 and 8.3e-4. In f16 in PyTorch 2.13 on a CPU they change by up to 1.3e-2 and 8.7e-3, with
  // root mean squares of 1.1e-3 and 1.2e-3; rounding nothing but x_t already changes some by 4.2e-3 and 2.9e-3.
  it.each([
    ['sd1', 1e-2],
    ['sd2', ALLOWED.worst],
    ['v', 1e-2],
    ['dit', ALLOWED.worst],
  ])('pipeline %s', async (name, worst) => {
    const folder = join(goldens, `pipeline-${name}`);
    const prompts = ['a photo of a cat.', 'a blurry photo of a dog', 'an oil painting of ships in a storm'];
    const found = await compareInBoth(
      (precision) =>
        openModel(folder, {
          precision,
          batchSize: 12,
          slots: 3,
          ...(name === 'dit'
            ? {}
            : {
                candidates: () => prompts.map((prompt, classidx) => ({ label: prompt, prompt, classidx })),
              }),
        }),
      imagesIn(join(folder, 'images'), 3),
      25,
    );
    expect(found.change).toBeLessThan(ALLOWED.change);
    expect(found.rms).toBeLessThan(ALLOWED.worst / 2);
    expect(found.worst).toBeLessThan(worst);
    expect(found.worst).toBeGreaterThan(0);
  });

  describe('EDM', () => {
    let root: string;
    beforeAll(async () => {
      root = await mkdtemp(join(tmpdir(), 'precisions-'));
    });
    afterAll(() => rm(root, { recursive: true }));

    it.each(['song', 'dhariwal', 'heads'])('%s', async (name) => {
      const golden = edmGolden(name);
      const folder = await writeEdmFolder(join(root, name), golden);
      const found = await compareInBoth(
        (precision) => openModel(folder, { precision, slots: 1, batchSize: 16 }),
        async () => [imageOf(golden)],
        24,
      );
      expect(found.change).toBeLessThan(ALLOWED.change);
      expect(found.worst).toBeLessThan(ALLOWED.worst);
    });
  });

  it.each(shipped)('shipped model %s', async (name) => {
    const folder = shippedPath(name);
    const found = await compareInBoth(
      (precision) => openModel(folder, { precision, slots: 3, batchSize: 30 }),
      imagesIn(samples, 3),
    );
    expect(found.change).toBeLessThan(ALLOWED.change);
    expect(found.worst).toBeLessThan(ALLOWED.worst);
  });

  it.for([
    ['own', {}],
    ['matrix', { family: 'matrix' }],
  ] as const)(
    'a UNet of the shape of Stable Diffusion 1.5 with a fifth of its channels, f16 in family %s',
    async ([family, inHalf], { skip }) => {
      if (family !== 'own' && !RUNS_ON[family]((await testDevice()).capabilities))
        return skip('this device has no matrix units');
      const { network, levels, candidates, context } = stableDiffusion();
      const found = await compareInBoth(
        async (precision) => {
          const device = await openDevice(precision === 'f16' ? inHalf : {});
          const buffer = createStorage(device, context.byteLength, context);
          return denoiser(
            device,
            network,
            {
              name: 'random',
              candidates,
              labels: candidates.map((_, i) => i),
              levels,
              temperature: 1,
              noise: { seed: 0n },
              distance: 'l2',
              weightDtype: precision,
              precision,
              batchSize: 4,
              slots: 2,
            },
            { tables: { context: { buffer, offset: 0, size: buffer.size } } },
          );
        },
        async ({ inputShape: [c, h, w] }) => [1, 2].map((seed) => randomValues(c * h * w, seed)),
        3,
      );
      expect(found.change).toBeLessThan(ALLOWED.change);
      expect(found.worst).toBeLessThan(ALLOWED.worst);
    },
  );
});

/** Returns a network of Stable Diffusion's shape with random weights and encodings of prompts. */
function stableDiffusion() {
  const config = parseUNet2DConditionConfig(
    {
      _class_name: 'UNet2DConditionModel',
      sample_size: 32,
      in_channels: 4,
      out_channels: 4,
      down_block_types: [...Array(3).fill('CrossAttnDownBlock2D'), 'DownBlock2D'],
      up_block_types: ['UpBlock2D', ...Array(3).fill('CrossAttnUpBlock2D')],
      block_out_channels: [64, 128, 256, 256],
      layers_per_block: 2,
      norm_num_groups: 32,
      cross_attention_dim: 128,
      attention_head_dim: 8,
    },
    'SD 1.5, smaller',
  );
  const parameters = randomParameters();
  const [prompts, tokens] = [4, 77];
  const levels = [50, 400, 800].map((t) => {
    const alphaBar = Math.cos((t / 1000) * (Math.PI / 2)) ** 2;
    return {
      t,
      weight: 1,
      coefficients: { a: Math.sqrt(alphaBar), b: Math.sqrt(1 - alphaBar), alpha: 1, beta: 0 },
    };
  });
  const times = timeTable({ ...config, timeEmbeddingType: 'positional' }, levels);
  const network: Network = {
    image: [4, 32, 32],
    shared(graph, sample, level) {
      const time = lookUp(graph, times, levels.length, level);
      return unet2dConditionShared(graph, parameters, config, { sample, time });
    },
    predict(graph, { label, shared }) {
      const all = input(graph, 'context', [config.crossAttentionDim, prompts, tokens, 1]);
      const context = apply(graph, 'pickSamples', {}, { x: all, index: label });
      const crossAttention = (name: string, inner: number) =>
        keysAndValues(graph, parameters, { name, inner }, context);
      return unet2dCondition(graph, parameters, config, { shared, crossAttention });
    },
  };
  const candidates = Array.from({ length: prompts }, (_, i) => ({ label: `prompt ${i}`, classidx: i }));
  const context = randomValues(config.crossAttentionDim * prompts * tokens, 9);
  return { network, levels, candidates, context };
}
