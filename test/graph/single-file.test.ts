// Tests single files of Stable Diffusion against diffusers and transformers, and against the folder that diffusers saved of
// the same model.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EvaluationBatch } from '../../src/graph/model.ts';
import type { OpenModelOptions } from '../../src/graph/models/open-model.ts';
import { modelFiles } from '../../src/graph/node/model-source.ts';
import { openModel } from '../../src/graph/node/open-model.ts';
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

describe.each(['sd1', 'sd2'] as const)('%s', (name) => {
  let golden: SingleGolden;
  beforeAll(async () => {
    golden = await unpackSingle(name);
  });
  afterAll(() => golden.remove());
  const files = name === 'sd1' ? ['single.safetensors', 'single.ckpt'] : ['single.safetensors'];

  it('has the tokens of transformers', async () => {
    const files = await modelFiles(golden.path('single.safetensors'));
    for (const [i, ids] of golden.ids.entries()) {
      const tokenizer = await readTokenizer(files, i === 0 ? 'tokenizer' : `tokenizer_${i + 1}`);
      expect(golden.prompts.map((prompt) => [...tokenizer.encode(prompt)])).toEqual(ids);
    }
  });

  it('as a single file has the errors of diffusers, to a relative 1e-4', async () => {
    const errors = await errorsOf(golden, 'single.safetensors');
    for (const [i, { error }] of golden.evaluations.entries())
      expect(Math.abs(errors[i]! / error - 1)).toBeLessThan(1e-4);
  });

  it('has the same bytes as a single file, as torch.save writes it, and as a folder', async () => {
    const [first, ...others] = await Promise.all(files.map((file) => errorsOf(golden, file)));
    for (const other of others) expect(other).toEqual(first);
    expect(await errorsOf(golden, 'folder')).toEqual(first);
  });
});
