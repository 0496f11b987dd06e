// Tests the recorder that runs kernel tests without Vitest.

import { expect, it } from 'vitest';
import { recorder, runCase, takeFile } from './test-functions.ts';

function file(calls: string[]): void {
  const { describe, it, expect } = recorder;
  describe.each(['plain', 'tile'] as const)('an op, %s', (family) => {
    calls.push(family);
    it.for([
      { size: 1, error: 0.5 },
      { size: [2, 3], error: 2 },
    ])('size $size', ({ error }) => {
      expect(error, 'at 7').toBeLessThan(1);
    });
    it('skips', (context) => context.skip('no such family'));
  });
  describe('as data', () => {
    it.each([[1, 2]])('%i is not %i', (a, b) => {
      expect([a, Number.NaN]).toEqual([a, Number.NaN]);
      expect(Float32Array.of(a)).toEqual(Float32Array.of(b));
    });
    it('throws', () =>
      expect(() => {
        throw new RangeError('2x7');
      }).toThrow('2x7'));
  });
}

it('records the tests of a file by family, and collects them again', async () => {
  const calls: string[] = [];
  file(calls);
  const collect = takeFile();
  expect(calls).toEqual([]);
  const cases = collect();
  expect(collect()).toHaveLength(cases.length);
  expect(calls).toEqual(['plain', 'tile', 'plain', 'tile']);
  expect(cases.map(({ family, title, index }) => [family, title, index])).toEqual([
    ['plain', 'size 1', 0],
    ['plain', 'size [2,3]', 1],
    ['plain', 'skips', 0],
    ['tile', 'size 1', 0],
    ['tile', 'size [2,3]', 1],
    ['tile', 'skips', 0],
    ['', '1 is not 2', 0],
    ['', 'throws', 0],
  ]);
  const results = [];
  for (const one of cases.slice(3)) results.push(await runCase(one));
  expect(results.map(({ outcome }) => outcome)).toEqual(['passed', 'failed', 'skipped', 'failed', 'passed']);
  expect(results[0]!.comparisons).toMatchObject([{ error: 0.5, bound: 1, holds: true }]);
  expect(results[1]!.message).toBe('at 7: expected less than 1, got 2');
  expect(results[3]!.comparisons.map(({ holds }) => holds)).toEqual([true, false]);
  // `takeFile` removes what it returns.
  expect(takeFile()()).toEqual([]);
});
