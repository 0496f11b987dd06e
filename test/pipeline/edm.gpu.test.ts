// Tests EDM folders from the command line, with the real graph: random networks against RDC's released classifier in
// PyTorch, in double precision.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { describeModel, openModel } from '../../src/graph/node/open-model.ts';
import { edmGolden, SIGMAS, writeEdmFolder, writeImage, writeNoise } from '../graph/edm-folder.ts';
import { cli, linesOf } from './captured-cli.ts';
import { temporaryFolder } from './image-files.ts';

const run = (...argv: string[]) => cli(argv, openModel, '', describeModel);
const golden = edmGolden('song');

/** Writes a folder of the model, an image, and noises in the order of the ascending grid, which `all` uses. */
async function inputs() {
  const folder = temporaryFolder();
  const model = await writeEdmFolder(join(folder, 'song'), golden);
  return {
    argv: ['--model', model],
    noise: ['--noise', await writeNoise(join(folder, 'noise.safetensors'))],
    image: writeImage(join(folder, 'image.png'), golden),
    errors: join(folder, 'errors.jsonl'),
  };
}

interface Record {
  readonly candidate: number;
  readonly sigma: number;
  readonly weight: number;
  readonly error: number;
}

describe('classify with an EDM folder', () => {
  test.each<[what: string, options: string[]]>([
    ["by the model's own grid", []],
    ['by the grid named', ['--sigmas', 'linspace:1e-4:3:126', '--weighting', 'rdc-code']],
  ])("%s: RDC's errors, weights and posterior", async (_what, options) => {
    const { argv, noise, image, errors } = await inputs();
    const all = ['--batch', '15', '--strategy', 'all', '--errors', errors, '--quiet'];
    const { status, out, err } = await run(...argv, ...noise, ...all, ...options, image);
    expect(err).toBe('');
    expect(status).toBe(0);
    const records: Record[] = linesOf(await readFile(errors, 'utf8'));
    expect(records).toHaveLength(3 * 125);
    const logits = [0, 0, 0];
    for (const { candidate, sigma, weight, error } of records) {
      const expected = golden.errors[candidate]![SIGMAS.findIndex((own) => Math.abs(own - sigma) < 1e-6)]!;
      expect(Math.abs(error - expected) / expected).toBeLessThan(5e-4);
      logits[candidate]! -= weight * error;
    }
    logits.forEach((logit, i) => {
      expect(Math.abs(logit / golden.logits[i]! - 1)).toBeLessThan(5e-4);
    });
    const [line] = linesOf(out);
    const best = golden.posterior.indexOf(Math.max(...golden.posterior));
    expect(line).toMatchObject({ classidx: best, label: `class ${best}`, evaluations: 375, model: 'song' });
    for (const { classidx, probability } of line.top)
      expect(Math.abs(probability / golden.posterior[classidx]! - 1)).toBeLessThan(5e-4);
  });

  test('accepts a few sigmas, and rejects timesteps', async () => {
    const { argv, image, errors } = await inputs();
    const few = ['--batch', '15', '--sigmas', '0.2,0.4,0.8', '--errors', errors, '--quiet'];
    expect((await run(...argv, ...few, image)).status).toBe(0);
    const records: Record[] = linesOf(await readFile(errors, 'utf8'));
    expect(new Set(records.map(({ sigma }) => sigma))).toEqual(new Set([0.2, 0.4, 0.8]));
    const { status, err } = await run(...argv, '--timesteps', 'even:4', image);
    expect(status).toBe(2);
    expect(err).toMatch(/sigmas/);
  });

  test('supports info and --dry-run', async () => {
    const { argv, image } = await inputs();
    const info = await run('info', argv[1]!);
    expect(info.status).toBe(0);
    expect(info.out).toContain('EDMPrecond');
    expect(info.out).toContain('125 sigmas, 0.0001 to ');
    expect(info.out).toMatch(/uncond\s+EDMPrecond/);
    expect(info.out).toContain('model_type SongUNet');
    const json = JSON.parse((await run('info', argv[1]!, '--format', 'json')).out);
    expect(json.model.levels).toHaveLength(125);
    expect(json.problems).toEqual([]);
    const dry = await run(...argv, '--dry-run', image);
    expect(dry.status).toBe(0);
    expect(dry.out + dry.err).toContain('125 noise levels');
  });
});
