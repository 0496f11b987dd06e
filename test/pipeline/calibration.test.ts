// Tests temperatures against a known optimum, and calibration errors against counts by hand.

import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ModelError, UsageError } from '../../src/errors.ts';
import { storeTemperature } from '../../src/graph/node/store-temperature.ts';
import {
  type ClassErrors,
  fitTemperature,
  holdOut,
  probabilities,
  reliabilityOf,
} from '../../src/pipeline/deciding/calibration.ts';
import { classOf, findLabelled } from '../../src/pipeline/node/labelled.ts';
import { gauss, hash } from './fake-model.ts';

/** Returns outcomes whose true class is drawn from softmax(-error / temperature), so that this temperature is optimal. */
function drawn(count: number, temperature: number, classes = 5): ClassErrors[] {
  return Array.from({ length: count }, (_, i) => {
    const errors = Array.from({ length: classes }, (_, c) => 0.5 + temperature * 2 * gauss(i, c));
    let u = hash(i, 99);
    const p = probabilities(errors, temperature);
    const truth = p.findIndex((share) => {
      u -= share;
      return u < 0;
    });
    return { errors, truth: truth < 0 ? classes - 1 : truth };
  });
}

describe('fitTemperature', () => {
  it('is 1 / ln 3 for two classes with a gap of 1 that are right in 3 of 4 cases (p = 3/4)', () => {
    const right = { errors: [0, 1], truth: 0 };
    const outcomes = [right, right, { errors: [1, 0], truth: 1 }, { errors: [0, 1], truth: 1 }];
    expect(fitTemperature(outcomes)).toBeCloseTo(1 / Math.log(3), 12);
    // Errors in other units give the temperature in these units.
    const scaled = outcomes.map(({ errors, truth }) => ({ errors: errors.map((e) => 7 + e * 1e-4), truth }));
    expect(fitTemperature(scaled) / (1e-4 / Math.log(3))).toBeCloseTo(1, 9);
  });

  it('finds the temperature with which labels were drawn; its neighbours are less likely', () => {
    const outcomes = drawn(4000, 0.003);
    const found = fitTemperature(outcomes);
    expect(found / 0.003).toBeGreaterThan(0.93);
    expect(found / 0.003).toBeLessThan(1.07);
    const loss = (temperature: number) => reliabilityOf(outcomes, temperature).negativeLogLikelihood;
    for (const factor of [0.99, 1.01]) expect(loss(found * factor)).toBeGreaterThan(loss(found));
  });

  it('throws if there is no optimum', () => {
    expect(() => fitTemperature([])).toThrow(UsageError);
    expect(() => fitTemperature([{ errors: [0, 1], truth: 0 }])).toThrow(
      /all 1 images are classified correctly/,
    );
    expect(() => fitTemperature([{ errors: [0, 1], truth: 1 }])).toThrow(
      /check that the labels belong to this model/,
    );
  });
});

describe('reliabilityOf', () => {
  // Two classes at temperature 1: p(first) = 1 / (1 + exp(e0 - e1)), so a gap of ln 4 is 0.8 and one of ln 1.5 is 0.6.
  const outcome = (odds: number, truth: number): ClassErrors => ({ errors: [0, Math.log(odds)], truth });
  const outcomes = [outcome(4, 0), outcome(4, 0), outcome(4, 1), outcome(1.5, 0), outcome(1.5, 1)];

  it('counts bins, accuracy, ECE and likelihood', () => {
    const found = reliabilityOf(outcomes, 1, 4); // (0.5, 0.75] holds 0.6, (0.75, 1] holds 0.8
    expect(found.accuracy).toBeCloseTo(3 / 5, 12);
    expect(found.bins.map(({ images }) => images)).toEqual([0, 0, 2, 3]);
    expect(found.bins[2]!.confidence).toBeCloseTo(0.6, 12);
    expect(found.bins[2]!.accuracy).toBeCloseTo(0.5, 12);
    expect(found.bins[3]!.accuracy).toBeCloseTo(2 / 3, 12);
    expect(found.expectedCalibrationError).toBeCloseTo((2 * 0.1 + 3 * (0.8 - 2 / 3)) / 5, 12);
    const likelihood = -(2 * Math.log(0.8) + Math.log(0.2) + Math.log(0.6) + Math.log(0.4)) / 5;
    expect(found.negativeLogLikelihood).toBeCloseTo(likelihood, 12);
  });

  it('is finite if a probability underflows', () => {
    const { negativeLogLikelihood } = reliabilityOf([{ errors: [0, 1], truth: 1 }], 1e-4);
    expect(negativeLogLikelihood).toBeCloseTo(1e4, 6);
  });
});

it('holds out a part of every class, spread over its images', () => {
  const outcomes = Array.from({ length: 12 }, (_, i) => ({ errors: [i], truth: i % 3 }));
  const { fit, heldOut } = holdOut(outcomes, 0.25);
  expect(heldOut.map(({ errors }) => errors[0])).toEqual([9, 10, 11]);
  expect(fit).toHaveLength(9);
});

describe('files', () => {
  let root: string;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'calibration-'));
  });
  afterEach(() => rm(root, { recursive: true }));
  const write = async (name: string, text: string | Uint8Array = '') => {
    await mkdir(dirname(join(root, name)), { recursive: true });
    await writeFile(join(root, name), text);
  };
  const labels = async (set: string, perClass?: number) => {
    const found: string[] = [];
    for await (const item of findLabelled(join(root, set), { perClass }))
      found.push('label' in item ? `${item.label} ${item.path.slice(root.length + 1)}` : item.error.code);
    return found;
  };

  it('a temperature is written to a card without other changes', async () => {
    const file = join(root, 'card.json');
    expect(await storeTemperature(root, 0.25)).toBe(file);
    expect(JSON.parse(await readFile(file, 'utf8'))).toEqual({ temperature: 0.25 });
    await write('card.json', '{\n  "timesteps": [3, 1],\n  "kappa": 0.5\n}\n');
    await storeTemperature(root, 0.001);
    expect(await readFile(file, 'utf8')).toBe(
      '{\n  "temperature": 0.001,\n  "timesteps": [3, 1],\n  "kappa": 0.5\n}\n',
    );
    await storeTemperature(root, 1.5e-7);
    expect(await readFile(file, 'utf8')).toContain('{\n  "temperature": 1.5e-7,\n  "timesteps": [3, 1],');
    await write('card.json', '{"temperatur": 1}');
    await expect(storeTemperature(root, 1)).rejects.toThrow(ModelError);
    expect(await readFile(file, 'utf8')).toBe('{"temperatur": 1}');
  });

  it('labelled sets are class folders or a table', async () => {
    for (const name of [
      'set/dog/b.png',
      'set/dog/deep/a.jpg',
      'set/cat/x.png',
      'set/cat/no.txt',
      'set/loose.png',
    ])
      await write(name);
    expect(await labels('set')).toEqual(['cat set/cat/x.png', 'dog set/dog/b.png', 'dog set/dog/deep/a.jpg']);
    expect(await labels('set', 1)).toEqual(['cat set/cat/x.png', 'dog set/dog/b.png']);
    await write('set.csv', 'path,label,more\nset/dog/b.png,dog,1\n"set/cat/x.png",7,2\n');
    expect(await labels('set.csv')).toEqual(['dog set/dog/b.png', '7 set/cat/x.png']);
    await write('blank.csv', '\ufeffpath,label\r\n\r\n set/dog/b.png , dog\r\n\r\n');
    expect(await labels('blank.csv')).toEqual(['dog set/dog/b.png']);
    await write('bad.csv', 'path,label\nset/dog/b.png,\n');
    await expect(labels('bad.csv')).rejects.toThrow(/bad\.csv, line 2: expected the columns path and label/);
    await mkdir(join(root, 'empty'));
    await expect(labels('empty')).rejects.toThrow(/got no labelled images/);
    await expect(labels('nothing')).rejects.toThrow(UsageError);
  });

  it('an unreadable table is one error', async ({ skip }) => {
    skip(process.platform !== 'linux', 'only Linux has /proc/self/mem');
    await symlink('/proc/self/mem', join(root, 'memory.csv')); // nothing can be read where it starts
    await expect(labels('memory.csv')).rejects.toThrow(
      new UsageError(`${join(root, 'memory.csv')}: cannot be read (EIO)`),
    );
  });

  it('a table that is not CSV is an error', async () => {
    await write('quoted.csv', 'path,label\n"a.png,dog\n');
    await expect(labels('quoted.csv')).rejects.toThrow(UsageError);
    await expect(labels('quoted.csv')).rejects.toThrow(/quoted\.csv: is not CSV: /);
  });

  it('labels are names of classes, or their numbers', () => {
    const classes = ['T-shirt/top', 'dog', 'Dog', '0'].map((label, classidx) => ({ label, classidx }));
    expect(
      ['t-shirt-top', 'dog', 'Dog', 'DOG', '0', '1', '7', 'cat'].map((label) => classOf(label, classes)),
    ).toEqual([0, 1, 2, undefined, 3, 1, undefined, undefined]);
  });
});
