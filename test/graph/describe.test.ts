// Tests the descriptions of a valid model folder, and of folders with several faults, all of which must be listed.

import { copyFileSync, cpSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { TensorData } from '../../src/graph/files/tensor-data.ts';
import { describeModel, evaluationCost } from '../../src/graph/node/open-model.ts';
import { openSafetensors } from '../../src/graph/node/open-safetensors.ts';
import { writeSafetensors } from '../../src/graph/node/write-safetensors.ts';

const SHIPPED = 'weights/fashion-mnist';

/** Copies the shipped model without its samples. */
function copy(): string {
  const folder = mkdtempSync(join(tmpdir(), 'diffclass-describe-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  for (const name of ['model_index.json', 'card.json']) copyFileSync(join(SHIPPED, name), join(folder, name));
  for (const name of ['unet', 'scheduler'])
    cpSync(join(SHIPPED, name), join(folder, name), { recursive: true });
  return folder;
}

function editJson(file: string, edit: (value: Record<string, unknown>) => void): void {
  const value = JSON.parse(readFileSync(file, 'utf8'));
  edit(value);
  writeFileSync(file, JSON.stringify(value));
}

describe('describeModel', () => {
  it('describes the shipped model as its card does', async () => {
    const found = await describeModel(SHIPPED);
    expect(found).toMatchObject({
      name: 'fashion-mnist',
      pipeline: 'DDPMPipeline',
      predictionType: 'epsilon',
      model: { conditioning: 'class', inputShape: [1, 28, 28] },
      problems: [],
    });
    expect(found.model?.labels).toHaveLength(10);
    expect(found.networks).toEqual([
      {
        part: 'unet',
        className: 'UNet2DModel',
        config: expect.objectContaining({ block_out_channels: [16, 32, 64], num_class_embeds: 11 }),
        parameters: 717_505,
        bytes: 2 * 717_505,
        dtypes: { F16: 717_505 },
        shards: 1,
      },
    ]);
    expect(found.cost!.flop / 1e6).toBeCloseTo(147.3, 1);
    expect(found.cost!.weightBytes).toBeGreaterThan(4 * 717_505);
  });

  it('computes memory for the options: f16 weights are half as large', async () => {
    const [wide, narrow] = await Promise.all([
      evaluationCost(SHIPPED, { weightDtype: 'f32' }),
      evaluationCost(SHIPPED, { weightDtype: 'f16' }),
    ]);
    expect(narrow.weightBytes * 2).toBe(wide.weightBytes);
    expect(narrow.flop).toBe(wide.flop);
  });

  it('lists several faults: a renamed tensor, an unsupported schedule, missing classes', async () => {
    const folder = copy();
    const weights = join(folder, 'unet/diffusion_pytorch_model.safetensors');
    const file = await openSafetensors(weights);
    const tensors: [string, TensorData][] = [];
    for (const { name, shape } of file.tensors.values()) {
      const data = await file.readF32(name);
      tensors.push([name === 'conv_in.bias' ? 'conv_in.shift' : name, { dtype: 'F32', shape, data }]);
    }
    await file.close();
    await writeSafetensors(weights, tensors);
    editJson(join(folder, 'scheduler/scheduler_config.json'), (config) => {
      config.prediction_type = 'flow';
    });
    editJson(join(folder, 'model_index.json'), (index) => {
      index.vae = ['diffusers', 'AutoencoderKL'];
    });
    const { problems, networks, cost } = await describeModel(folder);
    expect(cost).toBeUndefined();
    expect(networks[0]).toMatchObject({ part: 'unet', dtypes: { F32: 717_505 } });
    expect(problems).toEqual([
      expect.stringMatching(/scheduler_config\.json: expected prediction_type .*, got "flow"$/),
      expect.stringMatching(/missing tensor "conv_in\.bias"; unexpected tensor "conv_in\.shift"/),
      expect.stringMatching(/vae: no such folder$/),
    ]);
  });

  it('finds nothing wrong with a model without classes, and says what it is for', async () => {
    const folder = copy();
    editJson(join(folder, 'model_index.json'), (index) => {
      delete index.id2label;
    });
    editJson(join(folder, 'unet/config.json'), (config) => {
      delete config.num_class_embeds;
    });
    const weights = join(folder, 'unet/diffusion_pytorch_model.safetensors');
    const file = await openSafetensors(weights);
    const tensors: [string, TensorData][] = [];
    for (const { name, shape } of file.tensors.values())
      if (name !== 'class_embedding.weight')
        tensors.push([name, { dtype: 'F32', shape, data: await file.readF32(name) }]);
    await file.close();
    await writeSafetensors(weights, tensors);
    const { problems, note, model, cost } = await describeModel(folder);
    expect(problems).toEqual([]);
    expect(note).toMatch(/^the model has no classes, so it cannot classify; purify takes it/);
    expect(model?.labels).toEqual([]);
    expect(cost?.flop).toBeGreaterThan(0);
  });

  it('lists a missing scheduler once, even if another fault comes first', async () => {
    const folder = copy();
    rmSync(join(folder, 'scheduler'), { recursive: true });
    const alone = await describeModel(folder);
    expect(alone.problems).toEqual([expect.stringContaining('scheduler_config.json: no such file')]);
    rmSync(join(folder, 'unet/config.json'));
    const { problems } = await describeModel(folder);
    expect(problems).toEqual([
      expect.stringContaining('unet/config.json: no such file'),
      expect.stringMatching(/scheduler: no such folder$/),
    ]);
  });

  it('lists a truncated file, also by a name of torch.save', async () => {
    const folder = copy();
    const weights = join(folder, 'unet/diffusion_pytorch_model.safetensors');
    writeFileSync(weights, readFileSync(weights).subarray(0, 100_000));
    const cut = await describeModel(folder);
    expect(cut.problems).toHaveLength(1);
    expect(cut.problems[0]).toContain('diffusion_pytorch_model.safetensors: ');
    renameSync(weights, join(folder, 'unet/diffusion_pytorch_model.bin'));
    const { problems, networks, predictionType } = await describeModel(folder);
    expect(networks).toEqual([]);
    expect(predictionType).toBe('epsilon');
    expect(problems).toEqual([expect.stringContaining('diffusion_pytorch_model.bin: ')]);
  });

  it.each(['StableDiffusionXLInpaintPipeline', 'StableDiffusion3Pipeline', 'FluxPipeline'])(
    'lists %s as one problem',
    async (pipeline) => {
      const folder = copy();
      rmSync(join(folder, 'unet'), { recursive: true });
      writeFileSync(join(folder, 'model_index.json'), JSON.stringify({ _class_name: pipeline }));
      const { problems, pipeline: found } = await describeModel(folder);
      expect(found).toBe(pipeline);
      expect(problems).toEqual([expect.stringContaining(pipeline)]);
    },
  );

  it.each([
    ['no folder', (folder: string) => join(folder, 'nothing'), 'nothing: no such folder'],
    ['a file', (folder: string) => join(folder, 'card.json'), 'is this a safetensors file?'],
    ['an index that is not JSON', (folder: string) => folder, 'model_index.json'],
  ])('%s', async (_, pathOf, message) => {
    const folder = copy();
    writeFileSync(join(folder, 'model_index.json'), '{');
    const { problems } = await describeModel(pathOf(folder));
    expect(problems.join('; ')).toContain(message);
  });
});
