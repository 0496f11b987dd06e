// Tests that a device that is lost once neither ends `evaluate` and `attack` nor changes their results.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { DeviceLostError } from '../../../src/errors.ts';
import type { Model } from '../../../src/graph/model.ts';
import type { OpenModelOptions } from '../../../src/graph/models/open-model.ts';
import { encodePng } from '../../../src/pipeline/node/png.ts';
import { cli } from '../captured-cli.ts';
import { LABELS, SUMMARY } from '../fake-folder.ts';
import { hash } from '../fake-model.ts';
import { temporaryFolder, write } from '../image-files.ts';
import { smoothModel } from './fake-classifiers.ts';

const CLASSES = 4;
const SIDE = 4;
const SUMMARY_OF_SMOOTH = {
  ...SUMMARY,
  inputShape: [1, SIDE, SIDE] as const,
  labels: LABELS.slice(0, CLASSES),
};

/** Opens models. The first one loses its device at batch `lostAt` of errors or gradients. */
function opener(lostAt: number) {
  let opened = 0;
  const open = async (_: string, options: OpenModelOptions): Promise<Model> => {
    const levels = options.levels?.(SUMMARY_OF_SMOOTH).length ?? 4;
    const model = smoothModel({ classes: CLASSES, side: SIDE, levels });
    const candidates = options.candidates?.(SUMMARY_OF_SMOOTH) ?? [];
    const first = opened++ === 0;
    let batches = 0;
    const unlessLost = () => {
      if (first && ++batches >= lostAt) throw new DeviceLostError('the device was lost');
    };
    const { differentiable } = model;
    return {
      ...model,
      candidates,
      errors: async (batch) => {
        unlessLost();
        return model.errors(batch);
      },
      differentiable: {
        ...differentiable!,
        gradients: async (batch) => {
          unlessLost();
          return differentiable!.gradients(batch);
        },
      },
    };
  };
  return { open, count: () => opened };
}

function labelledSet(): string {
  const folder = temporaryFolder();
  for (let k = 0; k < 8; k++) {
    const data = Uint8Array.from({ length: SIDE * SIDE }, (_, i) => Math.floor(256 * hash(k, i, 8)));
    write(folder, {
      [`set/${LABELS[k % CLASSES]}/${k}.png`]: encodePng({ width: SIDE, height: SIDE, channels: 1, data }),
    });
  }
  return folder;
}

describe('a device lost once', () => {
  test.each([1, 10, 40])('evaluate continues with the same table: lost at batch %i', async (lostAt) => {
    const folder = labelledSet();
    const argv = ['evaluate', join(folder, 'set'), '--eps', '0.1', '--steps', '5', '--restarts', '1'];
    const [calm, lossy] = [opener(Number.POSITIVE_INFINITY), opener(lostAt)];
    const expected = await cli(argv, calm.open);
    expect(expected.status).toBe(0);
    const found = await cli(argv, lossy.open);
    expect([found.status, found.out]).toEqual([0, expected.out]);
    expect(lossy.count()).toBe(2);
  });

  test.each([1, 10, 40])('attack continues and writes the same images: lost at batch %i', async (lostAt) => {
    const folder = labelledSet();
    const run = async (name: string, { open }: ReturnType<typeof opener>) => {
      const out = join(folder, name);
      const argv = ['attack', join(folder, 'set'), '--eps', '0.1', '--steps', '5', '--out', out];
      expect((await cli(argv, open)).status).toBe(0);
      const { date: _, ...report } = JSON.parse(readFileSync(join(out, 'report.json'), 'utf8'));
      const files = report.images.map(({ file }: { file: string }) => readFileSync(join(out, file)));
      return { report, files };
    };
    const expected = await run('calm', opener(Number.POSITIVE_INFINITY));
    const lossy = opener(lostAt);
    expect(await run('lossy', lossy)).toEqual(expected);
    expect(lossy.count()).toBe(2);
  });
});
