// Tests `info` and `--dry-run`, which describe a model before it is used.

import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { evaluationsOf } from '../../src/pipeline/command/shared/evaluation-demand.ts';
import { timeEvaluations } from '../../src/pipeline/command/shared/evaluation-timing.ts';
import { bytes } from '../../src/pipeline/command/shared/progress.ts';
import { runTimeOf, secondsOf, sumOf, timeWork } from '../../src/pipeline/command/shared/timing.ts';
import { estimateOf } from '../../src/pipeline/command/subcommands/classify/estimate.ts';
import { all } from '../../src/pipeline/deciding/all.ts';
import { parseGrid, type SigmaGrid } from '../../src/pipeline/deciding/levels.ts';
import { sequential } from '../../src/pipeline/deciding/sequential.ts';
import { staged } from '../../src/pipeline/deciding/staged.ts';
import { sigmaLevels } from '../../src/pipeline/deciding/weighting.ts';
import { cli } from './captured-cli.ts';
import { fakeDescribe, fakeFolder, LABELS, TEXT_SUMMARY } from './fake-folder.ts';
import { fakeCandidates, fakeLevels, fakeModel, noisyErrors, runTrial } from './fake-model.ts';
import { goodImages, temporaryFolder } from './image-files.ts';

describe('info', () => {
  test('prints text and exits with 0', async () => {
    const { status, out, err } = await cli(['info', './somewhere'], fakeFolder(), '', fakeDescribe());
    expect([status, err]).toEqual([0, '']);
    for (const text of [
      /^model +fake \(\.\/somewhere\)$/m,
      /^pipeline +FakePipeline$/m,
      /^images +1 x 2 x 2$/m,
      /^classes +10: ant, bee, cat, dog, elk, \.\.\.$/m,
      /^noise levels +8 of 1,000 timesteps, 5 to 75, l2$/m,
      /^predicts +v_prediction$/m,
      /^unet +FakeNetwork, 1,234,567 parameters, F16, 2\.47 MB in 2 files$/m,
      /^ +in_channels 4$/m,
      /^ +block_out_channels 8,16$/m,
      /^per evaluation +1\.5 GFLOP$/m,
      /^memory +4\.94 MB weights .*, 1 MB or more per evaluation/m,
      /^problems +none$/m,
    ])
      expect(out).toMatch(text);
  });

  test('of a text model prints no classes, but the sizes of images that it takes', async () => {
    const { out } = await cli(['info'], fakeFolder(), '', fakeDescribe({ model: TEXT_SUMMARY }));
    expect(out).toMatch(/^classes +any, by --labels or --prompts$/m);
    expect(out).toMatch(/^images +1 x 2 x 2, or any multiple of 2 per side$/m);
  });

  test('--format json prints one object with the numbers', async () => {
    const { status, out } = await cli(['info', '--format', 'json']);
    expect(status).toBe(0);
    expect(out.trim().split('\n')).toHaveLength(1);
    expect(JSON.parse(out)).toMatchObject({
      name: 'fake',
      path: './fake',
      predictionType: 'v_prediction',
      model: { conditioning: 'class', classes: 10, labels: LABELS, timesteps: 1000, crop: 'centre' },
      networks: [{ part: 'unet', parameters: 1_234_567, dtypes: { F16: 1_234_567 } }],
      gflop: 1.5,
      memory: { weights: 4_938_268, activations: 1_000_000 },
      problems: [],
    });
  });

  test('lists all problems and exits with 3', async () => {
    const problems = ['unet/config.json: broken', 'vae: no such folder'];
    const broken = async (path: string) => ({ name: 'x', path, networks: [], problems });
    for (const argv of [['info'], ['info', '--format', 'json']]) {
      const { status, out } = await cli(argv, fakeFolder(), '', broken);
      expect(status).toBe(3);
      for (const problem of problems) expect(out).toContain(problem);
    }
  });

  test.each([
    [['info', 'a', 'b'], 'too many arguments'],
    [['info', 'a', '--model', 'b'], 'got two models'],
    [['info', '--labels', 'b'], "unknown option '--labels'"],
    [['info', '--model', 'fashion-mnits'], '--model: no model "fashion-mnits": expected a model folder'],
  ])('%j', async (argv, message) => {
    const { status, out, err } = await cli(argv);
    expect([status, out]).toEqual([2, '']);
    expect(err).toContain(message);
  });

  test('prints sizes with units', () => {
    expect([0, 512, 999, 1000, 1_435_010, 3.44e9].map(bytes)).toEqual([
      '0 B',
      '512 B',
      '999 B',
      '1 kB',
      '1.44 MB',
      '3.44 GB',
    ]);
  });
});

describe('evaluations per image', () => {
  const info = { candidates: fakeCandidates(37), levels: fakeLevels(250) };

  test('all: every pair of candidate and level', () => {
    expect(evaluationsOf(info, { strategy: all() })).toEqual({
      least: 9250,
      most: 9250,
      exhaustive: 9250,
      views: { least: 250, most: 250, exhaustive: 250 },
      atOnce: 37 * 110,
    });
  });

  test('staged: exactly the number in the paper', () => {
    const strategy = staged({ nSamples: [25, 250], toKeep: [5, 1] });
    expect(evaluationsOf(info, { strategy })).toMatchObject({ least: 2050, most: 2050, exhaustive: 9250 });
    expect(evaluationsOf(info, { strategy }).views).toEqual({ least: 250, most: 250, exhaustive: 250 });
  });

  test('sequential: from one or two rounds to the whole grid, or the budget', () => {
    expect(evaluationsOf(info, {})).toMatchObject({ least: 2 * 37, most: 9250, exhaustive: 9250 });
    expect(evaluationsOf({ ...info, kappa: 0.01 }, {})).toMatchObject({ least: 37 });
    expect(evaluationsOf(info, { strategy: sequential(), budget: 100 })).toMatchObject({
      least: 74,
      most: 74,
    });
  });

  test('the least is a lower bound, also if levels have different weights', () => {
    const levels = sigmaLevels(parseGrid('linspace:0.1:2:6') as SigmaGrid, 'rdc-code', {});
    const uneven = { candidates: fakeCandidates(10), levels };
    const { least, most } = evaluationsOf(uneven, {});
    expect([least, most]).toEqual([20, 50]);
    for (let image = 0; image < 200; image++) {
      const errorOf = (candidate: number, level: number) =>
        noisyErrors(10, 0.3, 0.05)(image, candidate, level, level);
      const { evaluations } = runTrial(sequential(), uneven, errorOf);
      expect(evaluations).toBeGreaterThanOrEqual(least);
      expect(evaluations).toBeLessThanOrEqual(most);
    }
  });

  test('prompts of one class are not distinguished', () => {
    const candidates = [0, 0, 1].map((classidx, i) => ({ label: String(i), classidx }));
    const { least, most } = evaluationsOf({ candidates, levels: fakeLevels(10) }, {});
    expect([least, most]).toEqual([6, 30]);
  });
});

describe('timed batches', () => {
  test('are filled level by level, as full as the images in flight allow', async () => {
    const model = fakeModel({ candidates: 3, levels: 4, batchSize: 8 });
    expect((await timeEvaluations(model, 2, 3)).units).toBe(6);
    expect(model.mostWaiting).toBe(1);
    expect((await timeEvaluations(model, 100, 3)).units).toBe(8);
    expect(model.mostWaiting).toBe(2);
    const batch = model.batches.at(-1)!;
    expect([...batch.candidate]).toEqual([0, 1, 2, 0, 1, 2, 0, 1]);
    expect([...batch.level]).toEqual([0, 0, 0, 1, 1, 1, 2, 2]);
    expect([...batch.noise]).toEqual([0, 0, 0, 1, 1, 1, 2, 2]);
  });

  /** Times work with a clock that every run advances by `seconds(units, index)`. */
  const timed = (fill: number, seconds: (units: number, index: number) => number) => {
    let clock = 0;
    let index = 0;
    const run = async (units: number) => {
      clock += 1000 * seconds(units, index++);
    };
    return timeWork({ run, fill }, () => clock);
  };

  test('the extra time of the first runs is separated from the time of every run', async () => {
    const found = await timed(8, (units, index) => 0.01 * units + ([5, 0, 3][index] ?? 0));
    expect(found).toMatchObject({ units: 8, runs: 10 });
    expect(found.once).toBeCloseTo(8, 9);
    for (const seconds of [found.fastest, found.mean, found.slowest]) expect(seconds).toBeCloseTo(0.01, 9);
  });

  test('the fastest and the slowest group of runs', async () => {
    // Three warm-up runs, then groups of two.
    const found = await timed(10, (units, index) => units * (index < 5 ? 0.02 : 0.01));
    expect([found.fastest, found.slowest].map((seconds) => seconds.toFixed(6))).toEqual([
      '0.010000',
      '0.020000',
    ]);
    expect(found.mean).toBeCloseTo(0.012, 9);
  });

  test('are smaller if an evaluation takes long', async () => {
    expect((await timed(64, (units) => 6 * units)).units).toBe(3);
    expect(await timed(64, (units) => 60 * units)).toMatchObject({ units: 1, runs: 4 });
  });
});

describe('the time of a run', () => {
  const timing = { fastest: 0.9, mean: 1, slowest: 1.2 };

  test('is a range from the least work at the highest speed to the most at the lowest, with a margin', () => {
    const { least, typical, most } = secondsOf(timing, { least: 2, typical: 3, most: 10 });
    expect(typical).toBe(3);
    expect(least).toBeLessThan(1.8);
    expect(most).toBeGreaterThan(12);
  });

  test('includes one-time costs once, but not in its lower end, because of a warm cache', () => {
    const image = { least: 1, typical: 2, most: 3 };
    expect(runTimeOf(10, image, 5).all).toEqual({ least: 10, typical: 25, most: 30 + 2 * 5 });
    expect(sumOf([image, { ...image, typical: null }])).toEqual({ least: 2, typical: null, most: 6 });
  });
});

describe('the network runs of an image', () => {
  const cost = { flop: 2e9, weightBytes: 1, activationBytes: 1 };
  const model = fakeModel({ candidates: 10, levels: 8, batchSize: 40 });
  const demand = {
    least: 20,
    most: 80,
    exhaustive: 80,
    views: { least: 2, most: 8, exhaustive: 8 },
    atOnce: 20,
  };
  const timing = { once: 2, units: 40, runs: 10, fastest: 0.1, mean: 0.1, slowest: 0.1 };
  const sample = { images: 4, evaluations: 30, views: 4, loading: 0, once: 1 };
  const measured = { images: 3, demand, timing, sample, opening: 1, deviceBytes: null };

  test('are counted by evaluations if candidates share nothing', () => {
    const { gflopImage, seconds } = estimateOf(model, { ...measured, cost });
    expect(gflopImage).toEqual({ least: 40, typical: 60, most: 160, exhaustive: 160 });
    expect(seconds.once).toBe(4);
    expect(seconds.image.typical).toBeCloseTo(3, 9);
    expect(seconds.all.typical).toBeCloseTo(3 * 3 + 4, 9);
    expect(seconds.image.exhaustive).toBeCloseTo(8, 9);
  });

  test('are counted by views if candidates share everything', () => {
    const { gflopImage, seconds, evaluations, gflop } = estimateOf(model, {
      ...measured,
      cost: { ...cost, sharedFlop: 2e9 },
    });
    expect([evaluations.most, gflop]).toEqual([80, 2]);
    expect(gflopImage).toEqual({ least: 4, typical: 8, most: 16, exhaustive: 16 });
    // The 4 views of a batch took 4 s.
    expect([seconds.image.typical, seconds.image.exhaustive]).toEqual([4, 8]);
  });

  test('are printed by info, with what is shared', async () => {
    const describe = fakeDescribe({ cost: { ...cost, sharedFlop: 1.5e9 } });
    const { out } = await cli(['info'], fakeFolder(), '', describe);
    expect(out).toMatch(/^per evaluation +2 GFLOP, 1\.5 GFLOP of it once for all candidates/m);
    expect(out).toMatch(/^per image +52 GFLOP for all classes at all levels$/m);
  });
});

describe('--dry-run', () => {
  test('prints the cost and classifies nothing', async () => {
    const folder = temporaryFolder();
    goodImages(folder, 7);
    const output = join(folder, 'out');
    const { status, out, err } = await cli(['--dry-run', '--output', output, folder]);
    expect([status, err]).toEqual([0, '']);
    for (const text of [
      /^model +fake, 10 classes, 8 noise levels$/m,
      /^evaluations per image +20 to 80, typically [\d.]+ \(exhaustive 80\)$/m,
      /^per evaluation +1\.5 GFLOP, [\d.]+ ms$/m,
      /^memory +4\.94 MB weights, 32 MB or more for batches of 32$/m,
      /^per image +.+ to .+, typically .+ms \(exhaustive/m,
      /^once +.+ to start, open the model and compile/m,
      /^all 7 images +.+ to .+, typically/m,
      /^timed +\d+ batches of 32 evaluations, [\d.]+ ms each$/m,
      /^typical +by the first 7 images, which were classified for real$/m,
      /^range +from the least work/m,
    ])
      expect(out).toMatch(text);
  });

  test('--format jsonl prints one object', async () => {
    const folder = temporaryFolder();
    const paths = goodImages(folder, 3);
    const argv = [
      '--dry-run',
      '--format',
      'jsonl',
      '--labels',
      'a,b',
      '--template',
      '{}',
      '--template',
      '{}s',
    ];
    const open = fakeFolder({ summary: TEXT_SUMMARY });
    const { status, out } = await cli([...argv, '--preset', 'fast', '-'], open, paths.join('\n'));
    expect(status).toBe(0);
    const estimate = JSON.parse(out);
    expect(estimate).toMatchObject({
      model: 'fake',
      images: 3,
      candidates: 4,
      classes: 2,
      levels: 50,
      evaluations: { least: 8, most: 200, exhaustive: 200 },
      gflop: 1.5,
      memory: { weights: 4_938_268, activations: 32e6, device: null },
      batchSize: 32,
      timed: { evaluations: 24 },
      sample: 3,
    });
    const { image, all: whole, once } = estimate.seconds;
    expect(image.least).toBeLessThan(image.typical);
    expect(image.typical).toBeLessThan(image.most);
    expect(whole.exhaustive).toBeCloseTo(3 * image.exhaustive + once, 9);
  });

  test('exits with 3 if the model is invalid', async () => {
    const broken = async (path: string) => ({
      name: 'x',
      path,
      networks: [],
      problems: ['vae: no such folder'],
    });
    const { status, err } = await cli(['--dry-run', 'x'], fakeFolder(), '', broken);
    expect([status, err]).toEqual([3, 'diffclass-stream: vae: no such folder\n']);
  });
});
