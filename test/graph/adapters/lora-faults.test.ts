// LoRA files that do not fit, that are not LoRAs, or that are broken: one sentence each.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import { mergeLoras } from '../../../src/graph/adapters/merge-loras.ts';
import { openTensorFile } from '../../../src/graph/files/safetensors.ts';
import type { TensorData } from '../../../src/graph/files/tensor-data.ts';
import { fileAt, folderFiles } from '../../../src/graph/node/folder-files.ts';
import { writeSafetensors } from '../../../src/graph/node/write-safetensors.ts';

const goldens = join(import.meta.dirname, '..', '..', 'golden');
const base = folderFiles(join(goldens, 'pipeline-sd1'));
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'lora-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Tensors of zeros by their shapes; a number is a tensor of one value. */
type Content = Readonly<Record<string, readonly number[] | number>>;

const tensorOf = (what: readonly number[] | number): TensorData =>
  typeof what === 'number'
    ? { dtype: 'F32', shape: [], data: Float32Array.of(what) }
    : { dtype: 'F32', shape: what, data: new Float32Array(what.reduce((all, side) => all * side, 1)) };

/** Merges a file and reads every weight; returns the message of the error. */
async function refusal(path: string): Promise<string> {
  try {
    const [files, name] = fileAt(path);
    const merged = await mergeLoras(base, [{ files, name, weight: 1 }]);
    for (const part of ['unet/diffusion_pytorch_model', 'text_encoder/model']) {
      const file = await openTensorFile(merged, `${part}.safetensors`);
      try {
        for (const tensor of file.tensors.keys()) await file.readF32(tensor);
      } finally {
        await file.close();
      }
    }
    return '';
  } catch (error) {
    expect(error).toBeInstanceOf(ModelError);
    return (error as Error).message;
  }
}

async function refusalOf(content: Content, metadata: [string, string][] = []): Promise<string> {
  const path = join(folder, 'x.safetensors');
  await writeSafetensors(
    path,
    Object.entries(content).map(([name, what]) => [name, tensorOf(what)]),
    metadata,
  );
  return (await refusal(path)).replace(folder, '');
}

const Q = 'lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q';
const CONV = 'lora_unet_down_blocks_1_resnets_0_conv1';
const good = { [`${Q}.lora_down.weight`]: [2, 8], [`${Q}.lora_up.weight`]: [8, 2] };

describe('a LoRA is refused in a sentence', () => {
  it.each<[what: string, content: Content, parts: string[]]>([
    ['missing up', { [`${Q}.lora_down.weight`]: [2, 8] }, [`"${Q}.lora_down.weight" has no lora_up`]],
    ['missing down', { [`${Q}.lora_up.weight`]: [8, 2] }, [`"${Q}.lora_up.weight" has no lora_down`]],
    [
      'an alpha alone',
      { ...good, 'lora_unet_conv_in.alpha': 1 },
      ['"lora_unet_conv_in.alpha" has no lora_down'],
    ],
    [
      'a rank of 0',
      { [`${Q}.lora_down.weight`]: [0, 8], [`${Q}.lora_up.weight`]: [8, 0] },
      ['has the rank 0'],
    ],
    [
      'two ranks',
      { [`${Q}.lora_down.weight`]: [2, 8], [`${Q}.lora_up.weight`]: [8, 3] },
      [`${Q}.lora_up.weight" [8, 3]`, 'this LoRA is for another base model'],
    ],
    [
      'a wider base',
      { [`${Q}.lora_down.weight`]: [2, 320], [`${Q}.lora_up.weight`]: [320, 2] },
      [
        `${Q}.lora_down.weight" [2, 320] does not fit the model's "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight" [8, 8]`,
      ],
    ],
    ['a scalar factor', { [`${Q}.lora_down.weight`]: [], [`${Q}.lora_up.weight`]: [8, 2] }, ['the rank 0']],
    [
      'a kernel of another size',
      { [`${CONV}.lora_down.weight`]: [2, 8, 1, 1], [`${CONV}.lora_up.weight`]: [16, 2, 1, 1] },
      ['does not fit'],
    ],
    [
      'a middle of another rank',
      {
        [`${CONV}.lora_down.weight`]: [2, 8, 1, 1],
        [`${CONV}.lora_mid.weight`]: [3, 3, 3, 3],
        [`${CONV}.lora_up.weight`]: [16, 3, 1, 1],
      },
      ['lora_mid'],
    ],
    [
      'a layer that the model has not',
      {
        'lora_unet_down_blocks_9_attentions_0_proj_in.lora_down.weight': [2, 8],
        'lora_unet_down_blocks_9_attentions_0_proj_in.lora_up.weight': [8, 2],
      },
      ['fits nothing: the model has no such layer in its unet'],
    ],
    [
      'a second text encoder',
      {
        'lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight': [2, 8],
        'lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight': [8, 2],
      },
      ['the model has no text_encoder_2; this LoRA is for another base model'],
    ],
    [
      'an alpha of NaN',
      { ...good, [`${Q}.alpha`]: Number.NaN },
      [`"${Q}.alpha": expected finite numbers, got NaN`],
    ],
    ['an infinite alpha', { ...good, [`${Q}.alpha`]: Number.POSITIVE_INFINITY }, ['got Infinity']],
    ['an alpha of two numbers', { ...good, [`${Q}.alpha`]: [2] }, ['expected one number, got [2]']],
    [
      'a layer twice',
      {
        ...good,
        'unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight': [2, 8],
        'unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight': [8, 2],
      },
      ['are the same part of a layer'],
    ],
    [
      'a layer under two names',
      {
        ...good,
        'lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_down.weight': [2, 8],
        'lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_up.weight': [8, 2],
      },
      ['change the same layer of the model'],
    ],
    ['a DoRA', { ...good, [`${Q}.dora_scale`]: [8, 1] }, ['is part of a DoRA, which is not supported']],
    ['a LoHa', { [`${Q}.hada_w1_a`]: [8, 2] }, ['a LoHa']],
    ['a LoKr', { [`${Q}.lokr_w1`]: [2, 2] }, ['a LoKr']],
    ['an OFT', { [`${Q}.oft_blocks`]: [2, 2] }, ['an OFT']],
    ['a whole model', { 'conv_in.weight': [8, 4, 3, 3] }, ['"conv_in.weight" is not one of a LoRA']],
    ['no tensors', {}, ['expected a LoRA, got a file without tensors']],
    ['a whole change of another shape', { 'lora_unet_conv_in.diff': [8, 4, 1, 1] }, ['does not fit']],
    [
      'a change of a bias that is not there',
      { [`${Q}.diff_b`]: [8] },
      ['the model has no "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.bias"'],
    ],
  ])('%s', async (_, content, parts) => {
    const message = await refusalOf(content);
    expect(message).toMatch(/^\/x\.safetensors: /);
    for (const part of parts) expect(message).toContain(part);
    expect(message).not.toContain('\n');
  });

  it('integers, and numbers that are not finite', async () => {
    const path = join(folder, 'y.safetensors');
    const write = (data: Float32Array | Int32Array) =>
      writeSafetensors(path, [
        [`${Q}.lora_down.weight`, { dtype: data instanceof Int32Array ? 'I32' : 'F32', shape: [1, 8], data }],
        [`${Q}.lora_up.weight`, tensorOf([8, 1])],
      ]);
    await write(new Int32Array(8));
    expect(await refusal(path)).toContain('expected F32, F16 or BF16, got I32');
    await write(Float32Array.of(0, 0, 0, Number.NaN, 0, 0, 0, 0));
    expect(await refusal(path)).toContain('lora_down.weight": expected finite numbers, got NaN at 3');
  });

  it.each([
    ['{"unet.use_dora": true}', 'describes a DoRA'],
    ['{"unet.lora_alpha": "8"}', 'lora_alpha'],
    [
      '{"unet.lora_alpha": 1, "unet.alpha_pattern": {"(a+)+$": 1}}',
      'expected names of layers in alpha_pattern',
    ],
    ['[1]', 'lora_adapter_metadata'],
    ['{', 'not valid JSON'],
  ])('metadata %s', async (text, part) => {
    expect(await refusalOf(good, [['lora_adapter_metadata', text]])).toContain(part);
  });
});

describe('a LoRA is read', () => {
  it('of whole changes of weights and biases', async () => {
    const path = join(folder, 'diff.safetensors');
    const ones = (shape: readonly number[]) =>
      ({
        ...tensorOf(shape),
        data: new Float32Array(shape.reduce((all, side) => all * side, 1)).fill(1),
      }) as TensorData;
    await writeSafetensors(path, [
      ['lora_unet_conv_in.diff', ones([8, 4, 3, 3])],
      ['lora_unet_conv_in.diff_b', ones([8])],
      ['lora_unet_conv_norm_out.w_norm', ones([8])],
    ]);
    const [files, name] = fileAt(path);
    const weights = 'unet/diffusion_pytorch_model.safetensors';
    const merged = await openTensorFile(await mergeLoras(base, [{ files, name, weight: -0.25 }]), weights);
    const before = await openTensorFile(base, weights);
    for (const tensor of ['conv_in.weight', 'conv_in.bias', 'conv_norm_out.weight'])
      expect(await merged.readF32(tensor)).toEqual(
        (await before.readF32(tensor)).map((value) => value - 0.25),
      );
    await merged.close();
    await before.close();
  });

  it('with alphas of its own for each layer', async () => {
    const path = join(folder, 'alphas.safetensors');
    const ones = (shape: readonly number[]): TensorData => ({
      dtype: 'F32',
      shape,
      data: new Float32Array(shape.reduce((all, side) => all * side, 1)).fill(1),
    });
    const K = Q.replace('to_q', 'to_k');
    await writeSafetensors(path, [
      [`${Q}.lora_down.weight`, ones([2, 8])],
      [`${Q}.lora_up.weight`, ones([8, 2])],
      [`${Q}.alpha`, tensorOf(3)],
      [`${K}.lora_down.weight`, ones([5, 8, 1, 1])],
      [`${K}.lora_up.weight`, ones([8, 5, 1, 1])],
      [`${K}.alpha`, tensorOf(1)],
    ]);
    const [files, name] = fileAt(path);
    const weights = 'unet/diffusion_pytorch_model.safetensors';
    const merged = await openTensorFile(await mergeLoras(base, [{ files, name, weight: 1 }]), weights);
    const before = await openTensorFile(base, weights);
    const attention = 'down_blocks.0.attentions.0.transformer_blocks.0.attn1';
    // Products of ones are the rank, times alpha / rank.
    for (const [layer, alpha] of [
      ['to_q', 3],
      ['to_k', 1],
    ] as const)
      expect(await merged.readF32(`${attention}.${layer}.weight`)).toEqual(
        (await before.readF32(`${attention}.${layer}.weight`)).map((value) => value + alpha),
      );
    await merged.close();
    await before.close();
  });
});

describe('1000 damaged files', () => {
  it('are read or refused in a sentence', async () => {
    const sources = ['kohya', 'diffusers', 'cp'].map((name) =>
      readFileSync(join(goldens, `lora/${name}.safetensors`)),
    );
    let state = 12345;
    const random = (below: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    const path = join(folder, 'fuzz.safetensors');
    let refused = 0;
    for (let trial = 0; trial < 1000; trial++) {
      const source = sources[trial % 3]!;
      const bytes = Buffer.from(source);
      const header = Number(bytes.readBigUInt64LE(0));
      for (let k = 0; k < 1 + random(3); k++) {
        const at = random(10) === 0 ? random(bytes.length) : 8 + random(header);
        // Digits are replaced by digits, so that shapes and offsets change, and letters by letters.
        const old = String.fromCharCode(bytes[at]!);
        bytes[at] = /\d/.test(old) ? 48 + random(10) : /[a-z]/.test(old) ? 97 + random(26) : random(256);
      }
      writeFileSync(path, random(10) === 0 ? bytes.subarray(0, random(bytes.length)) : bytes);
      const message = await refusal(path);
      expect(message).not.toContain('\n');
      if (message !== '') refused++;
    }
    expect(refused).toBeGreaterThan(300);
  }, 300_000);
});
