// A pixel model that also predicts variances has the errors of the same model without them.

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openModel } from '../../src/graph/node/open-model.ts';
import { openSafetensors } from '../../src/graph/node/open-safetensors.ts';
import { writeSafetensors } from '../../src/graph/node/write-safetensors.ts';

async function errorsOf(folder: string): Promise<number[]> {
  const model = await openModel(folder, { batchSize: 2, levels: () => [{ t: 300, weight: 1 }] });
  const image = Float32Array.from({ length: 28 * 28 }, (_, i) => Math.sin(i / 9));
  model.encode(0, image);
  const zeros = new Uint32Array(2);
  const errors = await model.errors({
    slot: zeros,
    candidate: Uint32Array.of(0, 3),
    level: zeros,
    noise: zeros,
  });
  model.close();
  return [...errors];
}

it('learned variances are ignored', async () => {
  const plain = join(import.meta.dirname, '../../weights/fashion-mnist');
  const folder = mkdtempSync(join(tmpdir(), 'variance-'));
  cpSync(plain, folder, { recursive: true });
  const edit = (name: string, change: (json: Record<string, unknown>) => void) => {
    const json = JSON.parse(readFileSync(join(folder, name), 'utf8'));
    change(json);
    writeFileSync(join(folder, name), JSON.stringify(json));
  };
  edit('unet/config.json', (config) => {
    config.out_channels = 2;
  });
  edit('scheduler/scheduler_config.json', (config) => {
    config.variance_type = 'learned_range';
  });
  const weights = 'unet/diffusion_pytorch_model.safetensors';
  const file = await openSafetensors(join(plain, weights));
  const tensors = await Promise.all(
    [...file.tensors.values()].map(async ({ name, shape }) => {
      const data = await file.readF32(name);
      if (!name.startsWith('conv_out.')) return [name, { dtype: 'F32', shape, data }] as const;
      const doubled = new Float32Array(2 * data.length).fill(0.7);
      doubled.set(data);
      return [name, { dtype: 'F32', shape: [2, ...shape.slice(1)], data: doubled }] as const;
    }),
  );
  await file.close();
  await writeSafetensors(join(folder, weights), tensors);
  const [expected, actual] = [await errorsOf(plain), await errorsOf(folder)];
  rmSync(folder, { recursive: true });
  expect(new Set(expected).size).toBe(2);
  expected.forEach((error, i) => {
    expect(Math.abs(actual[i]! / error - 1)).toBeLessThan(1e-6);
  });
});
