// Tests the messages for malformed grids of the command line.

import { describe, expect, test } from 'vitest';
import { evenTimesteps, linspace, parseGrid } from '../../src/pipeline/deciding/levels.ts';

const FORMS =
  'expected a grid even:N, linspace:A:B:N, linspace:A:B:N:left, importance:N, importance:A:B:N or sigmas separated by commas';

describe('a grid is rejected in one sentence with the text', () => {
  test.each([
    '',
    ':',
    'even:2:3',
    'evens:2',
    'linspace:1:2',
    'linspace:1:2:3:4',
    'linspace:1:2:3:right',
    'linspace:1:1:1:left',
    'importance:',
    'importance: ',
    'importance:0',
    'importance:-1',
    'importance:1.5',
    'importance:0.1:2',
    'importance:0.1:2:8:left',
    'importance:0:2:8',
    'importance:-1:2:8',
    'importance:2:2:8',
    'importance:3:2:8',
    'importance:1:Infinity:8',
    'importance:x:2:8',
  ])('"%s"', (text) => {
    expect(() => parseGrid(text, 1000)).toThrow(`${FORMS}, got "${text}"`);
  });

  test.each([
    ['importance', 'importance'],
    ['1,,2', ''],
    ['1, ,2', ' '],
    ['1,x', 'x'],
    ['0,1', '0'],
    ['1,-2', '-2'],
    ['1,Infinity', 'Infinity'],
  ])('"%s", of which one is not a sigma', (text, bad) => {
    expect(() => parseGrid(text)).toThrow(`grid "${text}": expected positive sigmas, got "${bad}"`);
  });

  test('with a repeated sigma', () => {
    expect(() => parseGrid('1,2,1.0')).toThrow('grid "1,2,1.0": expected different sigmas, got 1 twice');
  });

  test('timesteps for a model of sigmas', () => {
    expect(() => parseGrid('even:4')).toThrow('even:4: the model has sigmas, not timesteps');
  });

  test.each([0, -1, 1.5, 11, Number.NaN])('%d timesteps of 10', (count) => {
    expect(() => evenTimesteps(count, 10)).toThrow(`even: expected 1 to 10 timesteps, got ${count}`);
  });

  test.each([
    [0, 1, 2],
    [-1, 1, 2],
    [2, 1, 2],
    [1, 1, 2],
    [1, 2, 1],
    [1, 2, 2.5],
    [1, Number.POSITIVE_INFINITY, 2],
  ])('%d to %d in %d', (from, to, count) => {
    expect(() => linspace(from, to, count)).toThrow(
      `linspace: expected 0 < from < to and a count of 2 or more, got ${from}:${to}:${count}`,
    );
  });
});

test('the least that is accepted', () => {
  expect(evenTimesteps(1, 10)).toEqual([5]);
  expect(evenTimesteps(10, 10)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  expect(linspace(1, 1, 1)).toEqual([1]);
  expect(linspace(1, 2, 2)).toEqual([1, 2]);
  expect(parseGrid('linspace:1:2:2:left')).toEqual({ sigma: [1] });
  expect(parseGrid('importance:1')).toEqual({ importance: 1, range: [1e-4, 3] });
  expect(parseGrid('0.5')).toEqual({ sigma: [0.5] });
});
