import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import { type PixelConfig, pixelFamily } from '../../../src/graph/families/pixel/pixel-family.ts';
import { readModelConfig, requireClasses } from '../../../src/graph/models/families.ts';
import { folderFiles } from '../../../src/graph/node/folder-files.ts';

let root: string;
beforeEach(async () => {
  root = join(await mkdtemp(join(tmpdir(), 'folder-')), 'digits');
});
afterEach(() => rm(dirname(root), { recursive: true }));

const unet = {
  _class_name: 'UNet2DModel',
  sample_size: 28,
  in_channels: 1,
  out_channels: 1,
  block_out_channels: [32, 64],
  down_block_types: ['DownBlock2D', 'AttnDownBlock2D'],
  up_block_types: ['AttnUpBlock2D', 'UpBlock2D'],
  num_class_embeds: 3,
};
const index = {
  _class_name: 'DDPMPipeline',
  _diffusers_version: '0.42.1',
  scheduler: ['diffusers', 'DDPMScheduler'],
  unet: ['diffusers', 'UNet2DModel'],
  id2label: { 0: 'zero', 2: 'two', 1: 'one' },
};
type Files = Record<string, unknown>;
const good: Files = {
  'model_index.json': index,
  'unet/config.json': unet,
  'unet/diffusion_pytorch_model.safetensors': '',
  'scheduler/scheduler_config.json': { _class_name: 'DDPMScheduler', num_train_timesteps: 100 },
};

/** Writes the valid folder with some files changed. undefined leaves a file out; text is written unchanged. */
async function write(changes: Files = {}): Promise<string> {
  for (const [name, value] of Object.entries({ ...good, ...changes })) {
    await mkdir(dirname(join(root, name)), { recursive: true });
    if (value !== undefined)
      await writeFile(join(root, name), typeof value === 'string' ? value : JSON.stringify(value));
  }
  return root;
}
/** Reads the folder of a pixel model. */
const readPixelModel = async (path: string): Promise<PixelConfig> => {
  const { family, config } = await readModelConfig(folderFiles(path));
  expect(family).toBe(pixelFamily);
  return config as PixelConfig;
};

const unetWith = (changes: Record<string, unknown>): Files => ({
  'unet/config.json': { ...unet, ...changes },
});
const varianceType = (variance_type: string): Files => ({
  'scheduler/scheduler_config.json': { _class_name: 'DDPMScheduler', variance_type },
});
const LFS_POINTER =
  'version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 3438167540\n';
const indexWith = (changes: Record<string, unknown>): Files => ({
  'model_index.json': { ...index, ...changes },
});

describe('readModelConfig', () => {
  it('reads a pixel model', async () => {
    const folder = await readPixelModel(await write());
    expect(folder.files.name).toBe('digits');
    expect(folder.files.describe(folder.weights)).toBe(join(root, folder.weights));
    expect(folder).toMatchObject({
      weights: 'unet/diffusion_pytorch_model.safetensors',
      labels: ['zero', 'one', 'two'],
      card: undefined,
    });
    expect(folder.unet.numClassEmbeds).toBe(3);
    expect(folder.schedule.alphasCumprod).toHaveLength(100);
    expect(() => requireClasses({ family: pixelFamily, config: folder })).not.toThrow();
  });

  it('accepts DDIMPipeline and other samplers, which change nothing', async () => {
    const changes = {
      ...indexWith({ _class_name: 'DDIMPipeline', scheduler: ['diffusers', 'DDIMScheduler'] }),
      'scheduler/scheduler_config.json': { _class_name: 'PNDMScheduler', skip_prk_steps: true },
    };
    expect((await readPixelModel(await write(changes))).schedule.numTrainTimesteps).toBe(1000);
  });

  it.each<[what: string, changes: Files, labels: string[]]>([
    ['no id2label: the numbers', indexWith({ id2label: undefined }), ['0', '1', '2']],
    ['a list of names', indexWith({ id2label: ['eins', 'zwei', 'drei'] }), ['eins', 'zwei', 'drei']],
    ['a null class', { ...unetWith({ num_class_embeds: 4 }) }, ['zero', 'one', 'two']],
    [
      'a card with the number of classes',
      { ...indexWith({ id2label: null }), 'card.json': { classes: 2 } },
      ['0', '1'],
    ],
    ['class numbers as timesteps', unetWith({ class_embed_type: 'timestep' }), ['zero', 'one', 'two']],
    ['no classes', { ...unetWith({ num_class_embeds: null }), ...indexWith({ id2label: null }) }, []],
  ])('labels: %s', async (_what, changes, labels) => {
    expect((await readPixelModel(await write(changes))).labels).toEqual(labels);
  });

  it('reads class names that are lists', async () => {
    const changes = {
      ...unetWith({ _class_name: ['diffusers', 'UNet2DModel'] }),
      ...indexWith({ _class_name: ['diffusers', 'DDPMPipeline'] }),
      'scheduler/scheduler_config.json': { _class_name: ['diffusers', 'LCMScheduler'] },
    };
    expect((await readPixelModel(await write(changes))).schedule.numTrainTimesteps).toBe(1000);
  });

  it('takes the first half of twice the channels for the prediction, if the scheduler does not contradict', async () => {
    const unet = unetWith({ out_channels: 2 });
    const headless = unetWith({ out_channels: 2, num_class_embeds: null });
    const two = indexWith({ id2label: { 0: 'a', 1: 'b' } });
    const pixel = async (...changes: Files[]) => readPixelModel(await write(Object.assign({}, ...changes)));
    expect(await pixel(unet)).toMatchObject({ labels: ['zero', 'one', 'two'] });
    expect((await pixel(unet, varianceType('learned_range'))).heads).toBeUndefined();
    expect((await pixel(unet, varianceType('learned'))).heads).toBeUndefined();
    // Two outputs of a network without a class input are heads, unless the scheduler has learned variances.
    expect((await pixel(headless, two)).heads).toBe(2);
    expect(
      (await pixel(headless, two, indexWith({ id2label: null }), varianceType('learned'))).heads,
    ).toBeUndefined();
    const stated = indexWith({ id2label: { 0: 'a', 1: 'b' }, multi_head: true });
    expect((await pixel(headless, stated, varianceType('learned'))).heads).toBe(2);
  });

  it('recognises a multi-head model by its channels or by `multi_head`', async () => {
    const heads = (out: number) => unetWith({ num_class_embeds: null, out_channels: out });
    expect((await readPixelModel(await write())).heads).toBeUndefined();
    expect(await readPixelModel(await write(heads(3)))).toMatchObject({
      heads: 3,
      labels: ['zero', 'one', 'two'],
    });
    expect(await readPixelModel(await write(heads(4)))).toMatchObject({
      heads: 4,
      labels: ['zero', 'one', 'two'],
    });
    const stated = { ...heads(3), ...indexWith({ id2label: undefined, multi_head: true }) };
    expect(await readPixelModel(await write(stated))).toMatchObject({ heads: 3, labels: ['0', '1', '2'] });
    const withNullHead = { ...stated, 'card.json': { classes: 2 } };
    expect(await readPixelModel(await write(withNullHead))).toMatchObject({ heads: 3, labels: ['0', '1'] });
  });

  it('rejects models without at least two classes when classes are required', async () => {
    const none = { ...unetWith({ num_class_embeds: null }), ...indexWith({ id2label: undefined }) };
    const folder = await readPixelModel(await write(none));
    expect(() => requireClasses({ family: pixelFamily, config: folder })).toThrow(/the model has no classes/);
    expect(() =>
      requireClasses({ family: pixelFamily, config: { ...folder, labels: ['x'] } as PixelConfig }),
    ).toThrow(/the model has only one class/);
  });

  it.each<[what: string, file: string]>([
    ['an index of shards', 'diffusion_pytorch_model.safetensors.index.json'],
    ['fp16', 'diffusion_pytorch_model.fp16.safetensors'],
    ['shards of fp16', 'diffusion_pytorch_model.safetensors.index.fp16.json'],
    ['shards of fp16, by their old name', 'diffusion_pytorch_model.fp16.safetensors.index.json'],
  ])('weights: %s', async (_what, file) => {
    const changes = {
      'unet/diffusion_pytorch_model.safetensors': undefined,
      'unet/diffusion_pytorch_model.bin': '',
      [`unet/${file}`]: '',
    };
    expect((await readPixelModel(await write(changes))).weights).toBe(`unet/${file}`);
  });

  it('reads a card', async () => {
    const card = { timesteps: [50, 0, 99], weights: [1, 0.5, 0], temperature: 0.01, loss: 'l1' };
    expect((await readPixelModel(await write({ 'card.json': card }))).card).toEqual(card);
  });

  const noWeights = { 'unet/diffusion_pytorch_model.safetensors': undefined };
  it.each<[what: string, changes: Files, message: string | RegExp]>([
    [
      'broken model_index.json',
      { 'model_index.json': '{"_class_name": "DDPM' },
      /^model_index\.json: not valid JSON \(.*\)$/,
    ],
    ['an array', { 'model_index.json': [] }, /^model_index\.json: /],
    ['an empty file', { 'model_index.json': '' }, /^model_index\.json: not valid JSON/],
    ['no class', indexWith({ _class_name: undefined }), /^model_index\.json: _class_name: /],
    [
      'a Stable Diffusion folder with another network',
      indexWith({ _class_name: 'StableDiffusionPipeline' }),
      'model_index.json: expected the unet to be UNet2DConditionModel, got "UNet2DModel"',
    ],
    [
      'a DiT folder without its transformer',
      indexWith({ _class_name: 'DiTPipeline' }),
      'transformer/config.json: no such file',
    ],
    [
      'SDXL',
      indexWith({ _class_name: 'StableDiffusionXLInpaintPipeline' }),
      'model_index.json: "StableDiffusionXLInpaintPipeline" is an inpainting model of Stable Diffusion XL, whose network also takes a mask; expected Stable Diffusion 1.x or 2.x (StableDiffusionPipeline), XL (StableDiffusionXLPipeline), DiTPipeline, DDPMPipeline or DDIMPipeline',
    ],
    [
      'Stable Diffusion 3',
      indexWith({ _class_name: 'StableDiffusion3Pipeline' }),
      /^model_index\.json: "StableDiffusion3Pipeline" is Stable Diffusion 3, a flow model .*; expected /,
    ],
    [
      'Flux',
      indexWith({ _class_name: 'FluxPipeline' }),
      /^model_index\.json: "FluxPipeline" is a Flux model, .*; expected /,
    ],
    [
      'an unknown pipeline',
      indexWith({ _class_name: 'MyPipeline' }),
      /^model_index\.json: "MyPipeline" is a pipeline that is not supported; expected /,
    ],
    [
      'another network',
      indexWith({ unet: ['diffusers', 'UNet2DConditionModel'] }),
      'model_index.json: expected the unet to be UNet2DModel, got "UNet2DConditionModel"',
    ],
    [
      'EDM in an index',
      indexWith({ _class_name: 'EDMPrecond' }),
      /^model_index\.json: "EDMPrecond" is an EDM model, whose folder has a config\.json and no model_index\.json; expected /,
    ],
    [
      'a component',
      { 'model_index.json': undefined, 'config.json': unet },
      'config.json: "UNet2DModel" alone is not a model; give the folder with model_index.json',
    ],
    [
      'no index',
      { 'model_index.json': undefined },
      'model_index.json: no such file; expected a model folder as diffusers saves it, or one with the config.json of EDMPrecond',
    ],
    [
      'a hole in id2label',
      indexWith({ id2label: { 0: 'a', 2: 'c' } }),
      'model_index.json: expected all of 0 to 2 in id2label, got 2 classes without 1',
    ],
    [
      'a hole in id2label of all',
      { ...indexWith({ id2label: { 0: 'a', 3: 'd' } }), ...unetWith({ num_class_embeds: 4 }) },
      'model_index.json: expected all of 0 to 3 in id2label, got 2 classes without 1',
    ],
    [
      'too many labels',
      unetWith({ num_class_embeds: 2 }),
      'model_index.json: expected the keys 0 to 1 in id2label, got "2"',
    ],
    [
      'far too few labels',
      unetWith({ num_class_embeds: 10 }),
      'model_index.json: id2label names 3 classes, but the network has 10; name all of them, or write "classes": 3 in card.json if the others are no classes',
    ],
    [
      'a label that is no number',
      indexWith({ id2label: { 0: 'a', 1: 'b', '02': 'c' } }),
      'model_index.json: expected the keys 0 to 2 in id2label, got "02"',
    ],
    [
      'a label that is no text',
      indexWith({ id2label: { 0: 1, 1: 'b', 2: 'c' } }),
      /^model_index\.json: id2label\.0: /,
    ],
    [
      'labels without classes',
      unetWith({ num_class_embeds: null }),
      'model_index.json: id2label names 3 classes, but the unet takes no class numbers',
    ],
    [
      'a class twice',
      { 'model_index.json': '{"_class_name":"DDPMPipeline","id2label":{"0":"a","0":"b"}}' },
      'model_index.json: one object holds the key "0" twice',
    ],
    ['no unet config', { 'unet/config.json': undefined }, 'unet/config.json: no such file'],
    ['a broken unet config', { 'unet/config.json': '{,}' }, /^unet\/config\.json: not valid JSON/],
    [
      'no size',
      unetWith({ sample_size: null }),
      'unet/config.json: sample_size is missing; a pixel model needs the size of its images',
    ],
    [
      'twice the channels and a fixed variance',
      { ...unetWith({ out_channels: 2 }), ...varianceType('fixed_small') },
      'unet/config.json: expected out_channels 1 as in_channels, got 2 (twice as many are predictions and variances, but the scheduler\'s variance_type is "fixed_small")',
    ],
    [
      'other channels of a network without classes',
      unetWith({ out_channels: 5, num_class_embeds: null }),
      'unet/config.json: expected out_channels 1 as in_channels, got 5; a multi-head model names its classes in id2label',
    ],
    [
      'a pipeline with code of its own',
      indexWith({ _class_name: ['my_pipeline', 'MyPipeline'] }),
      /^model_index\.json: "my_pipeline\.MyPipeline" is a pipeline with code of its own, which is not run; expected Stable/,
    ],
    [
      'names with a gap',
      { ...unetWith({ num_class_embeds: 4 }), ...indexWith({ id2label: { 0: 'a', 1: 'b', 3: 'd' } }) },
      'model_index.json: expected all of 0 to 3 in id2label, got 3 classes without 2',
    ],
    [
      'a Git LFS pointer',
      { 'scheduler/scheduler_config.json': LFS_POINTER },
      'scheduler/scheduler_config.json: is a Git LFS pointer, not the file itself; fetch the file with "git lfs pull"',
    ],
    [
      'a page of a web site',
      { 'unet/config.json': '\uFEFF\n<!DOCTYPE html><html>' },
      'unet/config.json: is a page of a web site that was saved in place of the file; download the file itself',
    ],
    [
      'heads of a network that is conditioned on a class',
      { ...unetWith({ out_channels: 3 }), ...indexWith({ multi_head: true }) },
      /^model_index\.json: multi_head is set, but the network is conditioned on a class/,
    ],
    [
      'a multi-head model with one head',
      { ...unetWith({ num_class_embeds: null }), ...indexWith({ multi_head: true }) },
      'unet/config.json: expected out_channels to be in_channels 1 per class in a multi-head model, got 1',
    ],
    [
      'a number of classes that does not match the heads',
      { ...unetWith({ num_class_embeds: null, out_channels: 5 }), ...indexWith({ multi_head: true }) },
      'model_index.json: expected 5 classes for 5 heads, or 4 and a null head, got 3',
    ],
    ['no weights', noWeights, 'unet/diffusion_pytorch_model.safetensors: no such file'],
    [
      'weights of another name',
      { ...noWeights, 'unet/ema.safetensors': '' },
      'unet/diffusion_pytorch_model.safetensors: no such file (there is "ema.safetensors")',
    ],
    [
      'a pickle',
      { ...noWeights, 'unet/model.pth': '' },
      /^unet\/model\.pth: expected weights by another name, such as diffusion_pytorch_model\.safetensors; convert them/,
    ],
    [
      'no scheduler',
      { 'scheduler/scheduler_config.json': undefined },
      'scheduler/scheduler_config.json: no such file; without it, it is unknown whether the network predicts epsilon or v; copy it from where the model came from',
    ],
    [
      'another scheduler',
      { 'scheduler/scheduler_config.json': { _class_name: 'ScoreSdeVeScheduler' } },
      /^scheduler\/scheduler_config\.json: expected one of the schedulers .*, got "ScoreSdeVeScheduler"$/,
    ],
    ['a broken card', { 'card.json': '{' }, /^card\.json: not valid JSON/],
    [
      'a card of another model',
      { 'card.json': { timesteps: [100] } },
      'card.json: timestep 100 is outside 0 to 99 of the schedule',
    ],
    [
      'a card with too many classes',
      { 'card.json': { classes: 4 } },
      'model_index.json: expected a card of at most 3 classes (num_class_embeds), got 4',
    ],
  ])('refuses %s', async (_what, changes, message) => {
    const error = await readModelConfig(folderFiles(await write(changes))).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(ModelError);
    const text = (error as ModelError).message
      .replaceAll('\\', '/')
      .replace(`${root.replaceAll('\\', '/')}/`, '');
    if (typeof message === 'string') expect(text).toBe(message);
    else expect(text).toMatch(message);
    expect(text).not.toMatch(/\n/);
  });

  it('rejects a file that is too large to be a configuration', async () => {
    await write();
    const file = join(root, 'model_index.json');
    await truncate(file, 100_000_001);
    await expect(readModelConfig(folderFiles(root))).rejects.toThrow(
      `${file}: expected at most 100000000 bytes, got 100000001`,
    );
  });

  it('rejects a path that is not a folder', async () => {
    await expect(readModelConfig(folderFiles(root))).rejects.toThrow(`${root}: no such folder`);
    await write();
    const file = join(root, 'model_index.json');
    await expect(readModelConfig(folderFiles(file))).rejects.toThrow(`${file}: is not a folder`);
  });
});
