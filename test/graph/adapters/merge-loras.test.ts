// Merged weights and errors of evaluations against diffusers' fuse_lora and peft.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { mergeLoras } from '../../../src/graph/adapters/merge-loras.ts';
import type { Files } from '../../../src/graph/files/files.ts';
import { openTensorFile } from '../../../src/graph/files/safetensors.ts';
import type { TensorData } from '../../../src/graph/files/tensor-data.ts';
import { findWeights } from '../../../src/graph/folders/weights.ts';
import { fileAt, folderFiles } from '../../../src/graph/node/folder-files.ts';
import { openModel } from '../../../src/graph/node/open-model.ts';
import { writeSafetensors } from '../../../src/graph/node/write-safetensors.ts';
import { prepareImage } from '../../../src/pipeline/images/prepare.ts';
import { decodeFile } from '../../../src/pipeline/node/decode.ts';

const goldens = join(import.meta.dirname, '..', '..', 'golden');
const base = join(goldens, 'pipeline-sd1');
type Loras = readonly (readonly [file: string, weight: number])[];
const expected = JSON.parse(readFileSync(join(goldens, 'lora/expected.json'), 'utf8')) as {
  cases: Record<string, Loras>;
  both: { t: number; errors: number[] }[];
};

const sources = (loras: Loras) =>
  loras.map(([file, weight]) => {
    const [files, name] = fileAt(join(goldens, 'lora', file));
    return { files, name, weight };
  });

/** Reads all tensors of a component. */
async function weightsOf(files: Files, component: 'unet' | 'text_encoder') {
  const stem = component === 'unet' ? 'diffusion_pytorch_model' : 'model';
  const file = await openTensorFile(files, await findWeights(files, component, stem));
  const read = [...file.tensors.keys()].map(async (name) => [name, await file.readF32(name)] as const);
  const all = new Map(await Promise.all(read));
  await file.close();
  return all;
}

const relative = (actual: Float32Array, reference: Float32Array): number => {
  const largest = reference.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return actual.reduce((worst, value, i) => Math.max(worst, Math.abs(value - reference[i]!)), 0) / largest;
};

describe('merged weights', () => {
  it.each(['old', 'both', 'peft', 'cp'])('%s: are those of diffusers and peft, to 1e-6', async (name) => {
    const golden = await openTensorFile(...fileAt(join(goldens, 'lora/merged.safetensors')));
    const files = await mergeLoras(folderFiles(base), sources(expected.cases[name]!));
    let compared = 0;
    for (const component of ['unet', 'text_encoder'] as const) {
      const [actual, before] = [
        await weightsOf(files, component),
        await weightsOf(folderFiles(base), component),
      ];
      expect([...actual.keys()].sort()).toEqual([...before.keys()].sort());
      for (const [tensor, values] of actual) {
        const key = `${name}/${component}/${tensor}`;
        if (!golden.tensors.has(key)) {
          expect(values, key).toEqual(before.get(tensor));
          continue;
        }
        expect(relative(values, await golden.readF32(key)), key).toBeLessThan(1e-6);
        compared++;
      }
    }
    expect(compared).toBe([...golden.tensors.keys()].filter((key) => key.startsWith(`${name}/`)).length);
    expect(compared).toBeGreaterThan(0);
    await golden.close();
  });

  it('are the same under the names of the original implementation', async () => {
    const merged = (file: string) => mergeLoras(folderFiles(base), sources([[file, 0.7]]));
    const [kohya, ldm] = [await merged('kohya.safetensors'), await merged('ldm.safetensors')];
    for (const component of ['unet', 'text_encoder'] as const)
      expect(await weightsOf(ldm, component)).toEqual(await weightsOf(kohya, component));
  });

  it('of a model in shards, of which one layer changes', async () => {
    const sharded = folderFiles(join(goldens, 'pipeline-sd2'));
    expect(await findWeights(sharded, 'unet', 'diffusion_pytorch_model')).toMatch(/index.*json$/);
    const layer = 'down_blocks.0.attentions.0.proj_in';
    const folder = mkdtempSync(join(tmpdir(), 'lora-'));
    const path = join(folder, 'one.safetensors');
    const ones = (shape: number[], value: number): TensorData => ({
      dtype: 'F32',
      shape,
      data: new Float32Array(shape.reduce((all, side) => all * side, 1)).fill(value),
    });
    // A 1x1 convolution's LoRA of a linear layer.
    await writeSafetensors(path, [
      [`unet.${layer}.lora_A.weight`, ones([3, 8, 1, 1], 0.5)],
      [`unet.${layer}.lora_B.weight`, ones([8, 3, 1, 1], 1)],
    ]);
    const [files, name] = fileAt(path);
    const merged = await weightsOf(await mergeLoras(sharded, [{ files, name, weight: 2 }]), 'unet');
    const before = await weightsOf(sharded, 'unet');
    rmSync(folder, { recursive: true });
    for (const [tensor, values] of merged)
      expect(values, tensor).toEqual(
        before.get(tensor)!.map((value) => value + (tensor === `${layer}.weight` ? 3 : 0)),
      );
    expect(merged.size).toBe(before.size);
  });

  it('are the same in parts of any size, also of a file that begins anywhere', async () => {
    const files = await mergeLoras(folderFiles(base), sources(expected.cases.both!));
    const name = 'unet/diffusion_pytorch_model.safetensors';
    const file = await openTensorFile(files, name);
    const { begin, bytes } = file.tensors.get('down_blocks.1.resnets.0.conv1.weight')!;
    const whole = await file.read('down_blocks.1.resnets.0.conv1.weight');
    await file.close();
    const raw = await files.open(name);
    for (const [from, length] of [
      [0, bytes],
      [1, 1],
      [3, 777],
      [bytes - 5, 5],
      [4 * 71, 4 * 145],
    ] as const) {
      const part = new Uint8Array(length);
      expect(await raw.read(begin + from, part)).toBe(length);
      expect(part).toEqual(whole.subarray(from, from + length));
    }
    await raw.close();
  });
});

describe('a model with LoRAs', () => {
  it('has the errors of diffusers, to a relative 1e-4', async () => {
    const prompts = readFileSync(join(base, 'prompts.csv'), 'utf8').trim().split('\n').slice(1);
    const model = await openModel(base, {
      loras: expected.cases.both!.map(([file, weight]) => ({ file: join(goldens, 'lora', file), weight })),
      noiseFile: join(base, 'noise.safetensors'),
      levels: () => expected.both.map(({ t }) => ({ t, weight: 1 })),
      candidates: () =>
        prompts.map((line, classidx) => {
          const [, prompt = ''] = /^"?(.*?)"?,\w+,\d$/.exec(line)!;
          return { prompt, label: prompt, classidx };
        }),
    });
    const pixels = await decodeFile(join(base, 'images/0.png'));
    model.encode(0, prepareImage(pixels, model.inputShape, { crop: model.crop }));
    let worst = 0;
    for (const [level, { errors }] of expected.both.entries()) {
      const of = (value: number) => new Uint32Array(errors.length).fill(value);
      const actual = await model.errors({
        slot: of(0),
        candidate: Uint32Array.from(errors.keys()),
        level: of(level),
        noise: of(level),
      });
      errors.forEach((error, i) => {
        worst = Math.max(worst, Math.abs(actual[i]! / error - 1));
      });
    }
    model.close();
    expect(worst).toBeLessThan(1e-4);
  });
});
