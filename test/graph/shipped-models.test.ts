// Tests that shipped models are found by name from any working directory, and that a path takes precedence over a name.

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { ModelError } from '../../src/errors.ts';
import { DEFAULT_MODEL, modelFolder, shippedFolder } from '../../src/graph/node/model-path.ts';
import { describeModel, openModel, readModel } from '../../src/graph/node/open-model.ts';
import { firstSentence, shippedModels } from '../../src/graph/node/shipped-models.ts';

const home = process.cwd();

/** Changes to an empty folder until the end of the test. */
function emptyFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'shipped-models-'));
  process.chdir(folder);
  return folder;
}

afterEach(() => {
  const here = process.cwd();
  process.chdir(home);
  if (here !== home) rmSync(here, { recursive: true });
});

describe('shipped models', () => {
  test('each have a name, a folder, one sentence, classes and a shape', async () => {
    const models = await shippedModels();
    expect(models.map(({ name }) => name)).toEqual(
      expect.arrayContaining([DEFAULT_MODEL, 'fashion-mnist', 'cifar-10']),
    );
    for (const { name, path, description, classes, inputShape } of models) {
      expect(path).toBe(join(shippedFolder()!, name));
      expect(description, name).toMatch(/^[A-Z].{20,200}\.$/);
      expect(classes).toHaveLength(10);
      expect(inputShape).toHaveLength(3);
    }
  });

  test('are found by name by readModel and describeModel, from any working directory', async () => {
    emptyFolder();
    expect((await readModel('cifar-10')).inputShape).toEqual([3, 32, 32]);
    expect((await describeModel('cifar-10')).problems).toEqual([]);
  });

  test('are not used if there is a folder of the name', async () => {
    const folder = emptyFolder();
    mkdirSync(join(folder, 'cifar-10'));
    expect(await modelFolder('cifar-10')).toBe('cifar-10');
    await expect(readModel('cifar-10')).rejects.toThrow('cifar-10/model_index.json: no such file');
  });

  test('are listed in the ModelError for an unknown name', async () => {
    await expect(openModel('fashion-mnits')).rejects.toThrow(ModelError);
    await expect(openModel('fashion-mnits')).rejects.toThrow(
      /^no model "fashion-mnits": expected a model folder, or one of the shipped models cifar-10, fashion-mnist, /,
    );
    await expect(describeModel('fashion-mnits')).rejects.toThrow(ModelError);
  });
});

test('firstSentence returns the first sentence of a README, without links', () => {
  expect(
    firstSentence('# name\n\nA model of\n[CIFAR-10](https://x.example/a.b) (32.5). More.\n\nElse.'),
  ).toBe('A model of CIFAR-10 (32.5).');
  expect(firstSentence('')).toBe('');
});
