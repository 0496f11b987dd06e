// Strategies by name and with their options, as the command line chooses them, and the rounds that they ask for.

import { describe, expect, test } from 'vitest';
import { UsageError } from '../../src/errors.ts';
import { all } from '../../src/pipeline/deciding/all.ts';
import { sequential } from '../../src/pipeline/deciding/sequential.ts';
import { staged } from '../../src/pipeline/deciding/staged.ts';
import { chooseStrategy, STRATEGIES } from '../../src/pipeline/deciding/strategies.ts';
import { type Strategy, startTrial, type Trial } from '../../src/pipeline/deciding/trial.ts';
import { fakeCandidates, fakeLevels, hash, runTrial } from './fake-model.ts';

const INFO = { candidates: fakeCandidates(6), levels: fakeLevels(40) };
const errorOf = (c: number, level: number) => 0.5 + 0.05 * c + 0.05 * hash(c, level);
const trialsOf = (...strategies: Strategy[]) =>
  strategies.map((strategy) => runTrial(strategy, INFO, errorOf));

describe('chosen by name', () => {
  test('their names, and whether energies can be compared', () => {
    expect(STRATEGIES.map(({ name, energyRefusal }) => [name, energyRefusal !== undefined])).toEqual([
      ['sequential', true],
      ['staged', false],
      ['all', false],
    ]);
    expect(() => chooseStrategy('best', {})).toThrow(
      new UsageError('expected sequential, staged or all, got "best"'),
    );
  });

  test('sequential, with its confidence', () => {
    const [plain, sure] = [
      chooseStrategy('sequential', {}),
      chooseStrategy('sequential', { confidence: 0.9999 }),
    ];
    expect([plain.record, sure.record]).toEqual([
      'sequential, default confidence',
      'sequential, 0.9999 confidence',
    ]);
    expect([plain.gridLength, sure.gridLength]).toEqual([undefined, undefined]);
    expect(trialsOf(plain.strategy, sure.strategy)).toEqual(
      trialsOf(sequential(), sequential({ confidence: 0.9999 })),
    );
    const [a, b] = trialsOf(plain.strategy, sure.strategy);
    expect(a!.evaluations).toBeLessThan(b!.evaluations);
  });

  test('staged, with its stages; the grid is as long as the largest', () => {
    const { strategy, record, gridLength } = chooseStrategy('staged', {
      nSamples: [5, 20, 10],
      toKeep: [3, 2, 1],
    });
    expect([record, gridLength]).toEqual(['staged 5,20,10 to 3,2,1', 20]);
    expect(trialsOf(strategy)).toEqual(trialsOf(staged({ nSamples: [5, 20, 10], toKeep: [3, 2, 1] })));
  });

  test('all', () => {
    const { strategy, record } = chooseStrategy('all', {});
    expect(record).toBe('all');
    expect(trialsOf(strategy)).toEqual(trialsOf(all()));
  });

  test.each([
    [{}, 'needs --n-samples and --to-keep'],
    [{ nSamples: [5, 10] }, 'needs --n-samples and --to-keep'],
    [{ toKeep: [1] }, 'needs --n-samples and --to-keep'],
    [
      { nSamples: [5, 10], toKeep: [1] },
      '--n-samples has 2 stages, --to-keep has 1; give both the same number',
    ],
  ])('staged with %j is refused', (values, message) => {
    expect(() => chooseStrategy('staged', values)).toThrow(UsageError);
    expect(() => chooseStrategy('staged', values)).toThrow(message);
  });

  test('an option of another strategy is refused by its flag', () => {
    expect(() => chooseStrategy('all', { confidence: 0.5 })).toThrow(
      new UsageError('--confidence belongs to --strategy sequential'),
    );
    expect(() => chooseStrategy('sequential', { nSamples: [5] })).toThrow(
      '--n-samples belongs to --strategy staged',
    );
  });

  test('options are read from text', () => {
    const [sequentialEntry, stagedEntry] = STRATEGIES;
    const read = (option: { schema: { safeParse(text: unknown): unknown } }, text: string) =>
      option.schema.safeParse(text);
    expect(read(sequentialEntry!.options.confidence!, '0.95')).toMatchObject({ success: true, data: 0.95 });
    expect(read(sequentialEntry!.options.confidence!, '1')).toMatchObject({ success: false });
    for (const name of ['nSamples', 'toKeep']) {
      expect(read(stagedEntry!.options[name]!, '50, 500')).toMatchObject({ success: true, data: [50, 500] });
      expect(read(stagedEntry!.options[name]!, '50,0')).toMatchObject({ success: false });
    }
  });
});

describe('the rounds of all', () => {
  /** The levels of each round, in the order in which they are asked for. */
  const roundsOf = (candidates: number, levels: number): number[][] => {
    const info = { candidates: fakeCandidates(candidates), levels: [...fakeLevels(levels)].reverse() };
    const decide = all()(info);
    const rounds: number[][] = [];
    for (let trial: Trial = startTrial(info); ; ) {
      const { survivors, levels: next } = decide(trial);
      expect(survivors).toEqual(trial.survivors);
      if (next.length === 0) return rounds;
      rounds.push([...next]);
      trial = { ...trial, visited: [...trial.visited, ...next] };
    }
  };

  test('visit the grid in ascending order', () => {
    expect(roundsOf(3, 5)).toEqual([[4, 3, 2, 1, 0]]);
  });

  test('are of at most 4096 evaluations, and of a level at least', () => {
    expect(roundsOf(1024, 10).map(({ length }) => length)).toEqual([4, 4, 2]);
    expect(roundsOf(1025, 7).map(({ length }) => length)).toEqual([3, 3, 1]);
    expect(roundsOf(5000, 2).map(({ length }) => length)).toEqual([1, 1]);
    expect(roundsOf(5000, 2).flat()).toEqual([1, 0]);
  });
});

describe('staged', () => {
  const message = (nSamples: number[], toKeep: number[]) => () => staged({ nSamples, toKeep });

  test('says what is wrong with a schedule', () => {
    expect(message([], [])).toThrow(
      'staged: expected as many numbers of samples as of candidates to keep, got 0 and 0',
    );
    expect(message([5, 10], [1])).toThrow('got 2 and 1');
    expect(message([5, 0], [2, 1])).toThrow('staged: expected positive integers, got 0');
    expect(message([5, 10], [-2, 1])).toThrow('staged: expected positive integers, got -2');
    expect(message([5, 10], [1.5, 1])).toThrow('staged: expected positive integers, got 1.5');
    expect(message([5, 10], [3, 2])).toThrow('staged: expected a last stage that keeps 1 candidate, got 2');
    expect(message([1], [1])).not.toThrow();
  });

  test('a stage as dense as the grid fits', () => {
    expect(() => staged({ nSamples: [40], toKeep: [1] })(INFO)).not.toThrow();
    expect(() => staged({ nSamples: [41], toKeep: [1] })(INFO)).toThrow(
      'at most the 40 levels of the grid per stage, got 41',
    );
  });

  test('a round that the budget cut is taken up where it ended', () => {
    const decide = staged({ nSamples: [4, 8], toKeep: [2, 1] })(INFO);
    const started = startTrial(INFO);
    expect(decide(started)).toEqual({
      survivors: [0, 1, 2, 3, 4, 5],
      levels: [5, 15, 25, 35],
      noisePairing: 'visit',
    });
    const errors = [Float32Array.from(INFO.candidates, (_, c) => errorOf(c, 5))];
    expect(decide({ ...started, visited: [5], errors }).levels).toEqual([15, 25, 35]);
  });

  test('of equal means the lower index is kept', () => {
    const flat = runTrial(staged({ nSamples: [2, 4, 4], toKeep: [3, 2, 1] }), INFO, (c) =>
      c === 0 ? 1 : 0.5,
    );
    expect(flat.survivors).toEqual([1]);
    // Candidates 1 to 3 stay after the first stage of 2 levels, 1 and 2 after that of 2 + 4.
    expect(flat.errors.map((row) => row.filter((error) => !Number.isNaN(error)).length)).toEqual([
      6, 6, 3, 3, 3, 3,
    ]);
    expect(Number.isNaN(flat.errors[2]![0])).toBe(true);
    expect([...flat.errors[2]!].flatMap((error, c) => (Number.isNaN(error) ? [] : [c]))).toEqual([1, 2, 3]);
  });

  test('those that are kept stay in the order of the candidates, whatever their means', () => {
    const falling = runTrial(staged({ nSamples: [2, 4], toKeep: [3, 1] }), INFO, (c) => 1 - 0.125 * c);
    expect(falling.survivors).toEqual([5]);
    const decide = staged({ nSamples: [2, 4], toKeep: [3, 1] })(INFO);
    const visited = [10, 30];
    const errors = visited.map(() => Float32Array.from(INFO.candidates, (_, c) => 1 - 0.125 * c));
    expect(decide({ ...startTrial(INFO), visited, errors }).survivors).toEqual([3, 4, 5]);
  });

  test('a stage evaluates no level again', () => {
    const { visited } = runTrial(staged({ nSamples: [4, 4, 40], toKeep: [4, 2, 1] }), INFO, errorOf);
    expect(visited).toHaveLength(40);
    expect(new Set(visited).size).toBe(40);
  });
});
