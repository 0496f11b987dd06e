// Tests single files of Stable Diffusion against diffusers and transformers, and against the folder that diffusers saved of
// the same model.

import { cpSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ModelError } from '../../src/errors.ts';
import type { MeasuredPrediction } from '../../src/graph/checkpoints/prediction.ts';
import { openTensorFile } from '../../src/graph/files/safetensors.ts';
import type { TensorData } from '../../src/graph/files/tensor-data.ts';
import { findWeights } from '../../src/graph/folders/weights.ts';
import type { EvaluationBatch } from '../../src/graph/model.ts';
import { decidePrediction } from '../../src/graph/models/measure-prediction.ts';
import type { OpenModelOptions } from '../../src/graph/models/open-model.ts';
import { folderFiles } from '../../src/graph/node/folder-files.ts';
import { modelFiles } from '../../src/graph/node/model-source.ts';
import { describeModel, openModel } from '../../src/graph/node/open-model.ts';
import { openSafetensors } from '../../src/graph/node/open-safetensors.ts';
import { writeSafetensors } from '../../src/graph/node/write-safetensors.ts';
import { readTokenizer } from '../../src/graph/text/tokenizer-files.ts';
import { prepareImage } from '../../src/pipeline/images/prepare.ts';
import { decodeFile } from '../../src/pipeline/node/decode.ts';
import { type SingleGolden, unpackSingle } from './single-golden.ts';

/** Returns the errors of a golden's evaluations with a model. */
async function errorsOf(golden: SingleGolden, model: string, options: OpenModelOptions = {}) {
  const { path, prompts, side, evaluations } = golden;
  const timesteps = [...new Set(evaluations.map(({ t }) => t))];
  const opened = await openModel(path(model), {
    noiseFile: path('noise.safetensors'),
    batchSize: 4,
    imageSize: side,
    levels: () => timesteps.map((t) => ({ t, weight: 1 })),
    candidates: () => prompts.map((prompt, classidx) => ({ label: prompt, classidx, prompt })),
    ...options,
  });
  const pixels = await decodeFile(path('image.png'));
  opened.encode(0, prepareImage(pixels, opened.inputShape, { crop: opened.crop }));
  const errors: number[] = [];
  for (const { t, noise, candidate } of evaluations) {
    const batch: EvaluationBatch = {
      slot: Uint32Array.of(0),
      candidate: Uint32Array.of(candidate),
      level: Uint32Array.of(timesteps.indexOf(t)),
      noise: Uint32Array.of(noise),
    };
    errors.push(...(await opened.errors(batch)));
  }
  opened.close();
  return errors;
}

const goldens = new Map<string, SingleGolden>();
beforeAll(async () => {
  for (const name of ['sd1', 'sd2', 'xl']) goldens.set(name, await unpackSingle(name));
});
afterAll(() => {
  for (const golden of goldens.values()) golden.remove();
});

describe.each(['sd1', 'sd2', 'xl'])('%s', (name) => {
  const golden = () => goldens.get(name)!;

  it('has the tokens of transformers', async () => {
    const files = await modelFiles(golden().path('single.safetensors'));
    for (const [i, ids] of golden().ids.entries()) {
      const tokenizer = await readTokenizer(files, i === 0 ? 'tokenizer' : `tokenizer_${i + 1}`);
      expect(golden().prompts.map((prompt) => [...tokenizer.encode(prompt)])).toEqual(ids);
    }
  });

  it('as a single file has the errors of diffusers, to a relative 1e-4', async () => {
    const errors = await errorsOf(golden(), 'single.safetensors');
    for (const [i, { error }] of golden().evaluations.entries())
      expect(Math.abs(errors[i]! / error - 1)).toBeLessThan(1e-4);
  });

  it('has the same bytes as a single file, as torch.save writes it, and as a folder', async () => {
    const errors = await errorsOf(golden(), 'single.safetensors');
    expect(await errorsOf(golden(), 'folder')).toEqual(errors);
    if (name === 'sd1') expect(await errorsOf(golden(), 'single.ckpt')).toEqual(errors);
  });

  it('is described without problems', async () => {
    const { pipeline, predictionType, problems, path, networks } = await describeModel(
      golden().path('single.safetensors'),
      { imageSize: golden().side },
    );
    expect(problems).toEqual([]);
    expect(path).toBe(golden().path('single.safetensors'));
    expect(pipeline).toBe(name === 'xl' ? 'StableDiffusionXLPipeline' : 'StableDiffusionPipeline');
    expect(predictionType).toBe(name === 'sd1' ? 'epsilon' : 'v_prediction');
    expect(networks.map(({ part }) => part)).toContain('text_encoder');
  });
});

/** Writes a single file again with some tensors left out or added, and other metadata. Returns its name. */
async function changed(
  golden: SingleGolden,
  name: string,
  change: {
    readonly without?: RegExp;
    readonly add?: Readonly<Record<string, readonly number[]>>;
    /** An added tensor, and the value of its elements; the others are zero. */
    readonly fill?: readonly [name: string, value: number];
    readonly rename?: readonly [RegExp, string];
    readonly metadata?: Readonly<Record<string, string>>;
  },
): Promise<string> {
  const file = await openSafetensors(golden.path('single.safetensors'));
  const tensors: [string, TensorData][] = [];
  for (const { name, dtype, shape } of file.tensors.values()) {
    if (change.without?.test(name)) continue;
    tensors.push([
      change.rename ? name.replace(...change.rename) : name,
      { dtype, shape, data: await file.read(name) },
    ]);
  }
  for (const [name, shape] of Object.entries(change.add ?? {})) {
    const data = new Float32Array(shape.reduce((count, side) => count * side, 1));
    if (change.fill?.[0] === name) data.fill(change.fill[1]);
    tensors.push([name, { dtype: 'F32', shape, data }]);
  }
  await file.close();
  await writeSafetensors(golden.path(name), tensors, Object.entries(change.metadata ?? {}));
  return name;
}

const FIRST = 'model.diffusion_model.input_blocks.0.0.weight';

describe('weights of torch.save in a folder', () => {
  /** Returns the bytes of all tensors of the denoising network of a folder. */
  const bytesOf = async (folder: string) => {
    const files = folderFiles(folder);
    const name = await findWeights(files, 'unet', 'diffusion_pytorch_model');
    const file = await openTensorFile(files, name);
    const tensors = [...file.tensors.values()].map(async ({ name, shape }) => {
      const bytes = await file.read(name);
      return [name, [shape, Buffer.from(bytes).toString('base64')]] as const;
    });
    const all = new Map(await Promise.all(tensors));
    await file.close();
    return { name, all };
  };

  it('are the same as those of safetensors, in one file or in shards', async () => {
    const { path } = goldens.get('sd1')!;
    const { all } = await bytesOf(path('folder'));
    const unet = path('bin/unet');
    cpSync(path('folder'), path('bin'), { recursive: true });
    rmSync(`${unet}/diffusion_pytorch_model.safetensors`);
    cpSync(path('unet.bin'), `${unet}/diffusion_pytorch_model.bin`);
    expect(await bytesOf(path('bin'))).toEqual({ name: 'unet/diffusion_pytorch_model.bin', all });
    const shard = 'diffusion_pytorch_model-00001-of-00001.bin';
    renameSync(`${unet}/diffusion_pytorch_model.bin`, `${unet}/${shard}`);
    const index = { weight_map: Object.fromEntries([...all.keys()].map((name) => [name, shard])) };
    writeFileSync(`${unet}/diffusion_pytorch_model.bin.index.json`, JSON.stringify(index));
    expect(await bytesOf(path('bin'))).toEqual({ name: 'unet/diffusion_pytorch_model.bin.index.json', all });
  });
});

describe('what a network predicts', () => {
  const predicts = async (golden: SingleGolden, file: string, options: OpenModelOptions = {}) =>
    (await describeModel(golden.path(file), { imageSize: golden.side, ...options })).predictionType;

  it.each([
    ['sd2', 'the option', {}, { prediction: 'v' }, 'v_prediction'],
    ['sd1', 'the option against the kind', {}, { prediction: 'v' }, 'v_prediction'],
    ['sd1', 'a key', { add: { v_pred: [0] } }, {}, 'v_prediction'],
    ['sd1', 'nothing', {}, {}, 'epsilon'],
    ['xl', 'nothing', { without: /^(v_pred|ztsnr)$/ }, {}, 'epsilon'],
    ['sd2', 'nothing', {}, {}, 'unknown'],
    [
      'sd2',
      'the architecture',
      { metadata: { 'modelspec.architecture': 'stable-diffusion-v2-512' } },
      {},
      'epsilon',
    ],
    ['sd2', 'metadata', { metadata: { 'modelspec.prediction_type': 'epsilon' } }, {}, 'epsilon'],
  ] as const)('%s: %s says it', async (name, _, change, options, expected) => {
    const golden = goldens.get(name)!;
    expect(await predicts(golden, await changed(golden, 'p.safetensors', change), options)).toBe(expected);
  });

  it('of a folder is what the option says', async () => {
    expect(await predicts(goldens.get('sd1')!, 'folder', { prediction: 'v' })).toBe('v_prediction');
  });

  it('is refused if the metadata says something else', async () => {
    const golden = goldens.get('sd2')!;
    const file = await changed(golden, 'p.safetensors', {
      metadata: { 'modelspec.prediction_type': 'flow' },
    });
    await expect(openModel(golden.path(file))).rejects.toThrow(
      'modelspec.prediction_type is "flow", expected epsilon or v',
    );
  });

  it('is measured if the file does not say it, and remembered', async () => {
    const golden = goldens.get('sd2')!;
    const file = await changed(golden, 'p.safetensors', {});
    const found: MeasuredPrediction[] = [];
    const options: OpenModelOptions = { onPrediction: (measured) => found.push(measured) };
    const errors = await errorsOf(golden, file, options);
    const again = await errorsOf(golden, file, options);
    const [first, second] = found;
    expect(second).toEqual(first);
    expect(again).toEqual(errors);
    expect(await errorsOf(golden, file, { prediction: first!.prediction })).toEqual(errors);
  });

  it('is refused if the measurement is not clear', async () => {
    const golden = goldens.get('sd2')!;
    // A network of zeros: as noise its error is 1, as v that of the latents, whose mean is about 0.7 here.
    const shape = [4, 32, 3, 3];
    const change = {
      without: /^model\.diffusion_model\.out\.2|^first_stage_model\.quant_conv\.bias/,
      add: {
        'model.diffusion_model.out.2.weight': shape,
        'model.diffusion_model.out.2.bias': [4],
        'first_stage_model.quant_conv.bias': [8],
      },
      fill: ['first_stage_model.quant_conv.bias', 5] as const,
    };
    const file = await changed(golden, 'unclear.safetensors', change);
    await expect(errorsOf(golden, file)).rejects.toThrow('give --prediction epsilon or --prediction v');
  });

  it('wins by a factor of two', () => {
    expect(decidePrediction('a', 0.1, 0.2).prediction).toBe('epsilon');
    expect(decidePrediction('a', 0.2, 0.1).prediction).toBe('v');
    expect(() => decidePrediction('a', 0.2, 0.11)).toThrow(ModelError);
  });
});

describe('an autoencoder of its own', () => {
  it('as a file in either layout, or as a folder, has the same bytes as in the model', async () => {
    const golden = goldens.get('sd1')!;
    const expected = await errorsOf(golden, 'single.safetensors');
    const model = await changed(golden, 'no-vae.safetensors', { without: /^first_stage_model\./ });
    await expect(openModel(golden.path(model))).rejects.toThrow(
      'the checkpoint has no autoencoder (first_stage_model.encoder.*); give one with --vae FILE',
    );
    const alone = await changed(golden, 'vae.safetensors', {
      without: /^(?!first_stage_model\.)/,
      rename: [/^first_stage_model\./, ''],
    });
    for (const vae of [alone, 'folder/vae', 'folder', 'folder/vae/diffusion_pytorch_model.safetensors'])
      expect(await errorsOf(golden, model, { vae: golden.path(vae) })).toEqual(expected);
    expect(await errorsOf(golden, 'folder', { vae: golden.path(alone) })).toEqual(expected);
    await expect(openModel(golden.path(alone))).rejects.toThrow('an autoencoder alone; give it with --vae');
    await expect(openModel(golden.path(model), { vae: golden.path(model) })).rejects.toThrow(
      'expected an autoencoder',
    );
  });
});

describe('other files are refused by what they are:', () => {
  const wide = (channels: number) => ({ without: new RegExp(FIRST), add: { [FIRST]: [32, channels, 3, 3] } });
  it.each([
    ['sd1', wide(9), 'an inpainting model, whose network also takes a mask (9 input channels)'],
    ['sd1', wide(8), 'an editing model (InstructPix2Pix)'],
    ['sd2', wide(5), 'a depth-to-image model'],
    ['sd2', wide(7), 'an upscaler'],
    ['sd2', { add: { 'model.diffusion_model.label_emb.0.0.weight': [8, 8] } }, '(unCLIP)'],
    [
      'xl',
      { without: /embedders\.0\./, rename: [/embedders\.1\./, 'embedders.0.'] },
      'the refiner of Stable Diffusion XL',
    ],
    ['sd1', { without: /^cond_stage_model/ }, 'a denoising network but no text encoder'],
    ['sd1', { without: /^(model|first_stage)/ }, 'a checkpoint of a text encoder alone'],
    ['sd1', { without: /input_blocks\.1\.0\.in_layers\.0\.bias/ }, '"down_blocks.0.resnets.0.norm1.bias"'],
    ['sd1', { without: /input_blocks\.1\.0\.out_layers\.3\.weight/ }, 'out_layers.3.weight" is missing'],
    [
      'sd1',
      { without: /./, add: { 'model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight': [3] } },
      'Stable Diffusion 3 or 3.5, a flow model',
    ],
    [
      'sd1',
      { without: /./, add: { 'double_blocks.0.img_attn.qkv.weight': [3] } },
      'a Flux model or one of its kin, a flow model',
    ],
    [
      'sd1',
      { without: /./, add: { 'lora_unet_down_blocks_0_attentions_0.lora_down.weight': [3] } },
      'a LoRA; give it with --lora',
    ],
    [
      'sd1',
      { without: /./, add: { 'down_blocks.0.resnets.0.conv1.weight': [3] } },
      'give the folder with model_index.json',
    ],
    ['sd1', { without: /./, add: { something: [3] } }, 'got other tensors, such as "something"'],
    [
      'sd1',
      { add: { 'model.diffusion_model.input_blocks.1.1.transformer_blocks.0.fuser.alpha': [1] } },
      'unexpected tensor',
    ],
  ] as const)('%s %#: %o', async (name, change, message) => {
    const golden = goldens.get(name)!;
    const path = golden.path(await changed(golden, 'other.safetensors', change));
    const { problems } = await describeModel(path, { imageSize: golden.side });
    expect(problems[0]).toContain(message);
    expect(problems[0]!.startsWith(path)).toBe(true);
  });
});
