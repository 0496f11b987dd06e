// A LoRA and a textual inversion of Stable Diffusion XL, with both text encoders, against diffusers.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openModel } from '../../../src/graph/node/open-model.ts';
import { geometryOf, prepareImage } from '../../../src/pipeline/images/prepare.ts';
import { decodeFile } from '../../../src/pipeline/node/decode.ts';

const goldens = join(import.meta.dirname, '..', '..', 'golden');
const base = join(goldens, 'pipeline-xl');
const folder = join(goldens, 'adapters-xl');
const expected = JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as {
  prompts: string[];
  weight: number;
  errors: { t: number; errors: number[] }[];
};

it('has the errors of diffusers, to a relative 1e-4', async () => {
  const model = await openModel(base, {
    loras: [{ file: join(folder, 'lora.safetensors'), weight: expected.weight }],
    embeddings: [{ file: join(folder, 'embedding.safetensors'), token: '<toy>' }],
    noiseFile: join(base, 'noise.safetensors'),
    levels: () => expected.errors.map(({ t }) => ({ t, weight: 1 })),
    candidates: () => expected.prompts.map((prompt, classidx) => ({ prompt, label: prompt, classidx })),
  });
  const pixels = await decodeFile(join(base, 'images/0.png'));
  const prepared = prepareImage(pixels, model.inputShape, { crop: model.crop });
  model.encode(0, prepared, geometryOf(pixels, model.inputShape));
  for (const [level, { errors }] of expected.errors.entries()) {
    const of = (value: number) => new Uint32Array(errors.length).fill(value);
    const candidate = Uint32Array.from(errors.keys());
    const actual = await model.errors({ slot: of(0), candidate, level: of(level), noise: of(level) });
    errors.forEach((error, i) => {
      expect(Math.abs(actual[i]! / error - 1)).toBeLessThan(1e-4);
    });
  }
  model.close();
});
