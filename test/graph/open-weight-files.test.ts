// Tests that a model keeps its file of weights open only while gradients may need it, by counting the open descriptors of
// this process, on systems that list them.

import { readdirSync, readlinkSync } from 'node:fs';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { loadModel } from '../../src/graph/models/open-model.ts';
import { folderFiles } from '../../src/graph/node/folder-files.ts';
import { describeModel, openModel } from '../../src/graph/node/open-model.ts';
import { openDevice } from '../../src/kernels/device/device.ts';

const goldens = join(import.meta.dirname, '..', 'golden');
const DESCRIPTORS = '/proc/self/fd';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'diffclass-open-'));
  await cp(join(goldens, 'errors-epsilon'), folder, { recursive: true });
});
afterAll(() => rm(folder, { recursive: true }));

/** Counts the open descriptors of files in the model's folder. */
const open = (): number =>
  readdirSync(DESCRIPTORS).filter((fd) => {
    try {
      return readlinkSync(join(DESCRIPTORS, fd)).startsWith(folder);
    } catch {
      return false; // the descriptor of the listing itself
    }
  }).length;

const closed = () => vi.waitFor(() => expect(open()).toBe(0));
const options = { levels: () => [{ t: 300, weight: 1 }], batchSize: 1, slots: 1 };
const one = Uint32Array.of(0);

describe('the file of weights', () => {
  beforeEach(({ skip }) => skip(process.platform !== 'linux', 'only Linux lists open descriptors'));

  it('is open until the model is closed, with or without a gradient before', async () => {
    for (const gradient of [false, true]) {
      const model = await openModel(folder, options);
      expect(open()).toBe(1);
      if (gradient)
        await model.differentiable!.gradients({ slot: one, candidate: one, level: one, noise: one });
      model.close();
      model.close();
      await closed();
    }
  });

  it('is closed if the model is closed during its first gradient', async () => {
    const model = await openModel(folder, options);
    const gradient = model
      .differentiable!.gradients({ slot: one, candidate: one, level: one, noise: one })
      .catch(() => undefined);
    model.close();
    await closed();
    await gradient;
  });

  it('is closed if opening fails because of the noise or a lost device', async () => {
    await expect(openModel(folder, { ...options, noiseFile: join(folder, 'none') })).rejects.toThrow();
    expect(open()).toBe(0);
    const lost = await openDevice();
    lost.gpu.destroy();
    await expect(openModel(folder, { ...options, device: lost.gpu })).rejects.toThrow();
    expect(open()).toBe(0);
    lost.close();
  });

  it('is closed after a description', async () => {
    const { problems } = await describeModel(folder);
    expect(problems).toEqual([]);
    expect(open()).toBe(0);
  });

  it('is closed once, however often a loaded model is closed', async () => {
    const { close } = await loadModel(folderFiles(folder), options);
    expect(open()).toBe(1);
    expect(close()).toBe(close());
    await close();
    expect(open()).toBe(0);
  });
});
