// Tests models whose files are in memory instead of a folder on disk.

import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ModelError } from '../../src/errors.ts';
import { loadModel } from '../../src/graph/models/open-model.ts';
import { shippedPath } from '../../src/graph/node/model-path.ts';
import { describeModel, readModel } from '../../src/graph/node/open-model.ts';
import { memoryFiles } from './memory-files.ts';

/** Reads every file of a folder, by its name relative to the folder. */
const contentsOf = (folder: string): Map<string, Uint8Array> =>
  new Map(
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .map((path) => [relative(folder, path).replaceAll('\\', '/'), readFileSync(path)]),
  );

const golden = (name: string): string => join(import.meta.dirname, '..', 'golden', name);

describe('a model in memory', () => {
  it.each(['fashion-mnist', 'fashion-mnist-multi-head', 'cifar-10'])(
    'is described, summarised and loaded like %s on disk',
    async (name) => {
      const files = memoryFiles(name, contentsOf(shippedPath(name)));
      expect(await readModel(files)).toEqual(await readModel(shippedPath(name)));
      const described = await describeModel(files);
      expect(described.problems).toEqual([]);
      expect(described).toEqual({ ...(await describeModel(shippedPath(name))), path: `memory:${name}` });
      const { evaluation, close } = await loadModel(files);
      expect(evaluation.name).toBe(name);
      await close();
    },
  );

  it('may have a text encoder, a tokenizer and shards', async () => {
    const files = memoryFiles('pipeline-sd1', contentsOf(golden('pipeline-sd1')));
    const { problems, networks } = await describeModel(files);
    expect(problems).toEqual((await describeModel(golden('pipeline-sd1'))).problems);
    expect(networks.map(({ part }) => part)).toEqual(['text_encoder', 'unet', 'vae']);
  });

  it('names the missing file in its error', async () => {
    const files = memoryFiles('empty', new Map([['unet/config.json', new Uint8Array()]]));
    await expect(readModel(files)).rejects.toThrow(ModelError);
    await expect(readModel(files)).rejects.toThrow('memory:empty/model_index.json: no such file');
  });
});
