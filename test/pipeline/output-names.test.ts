// Tests the names of written images.

import { expect, test } from 'vitest';
import { outputNames, pngName } from '../../src/pipeline/command/shared/output-names.ts';

test('names are relative to their roots; equal ones differ by their folders, then by a number', () => {
  const nameOf = outputNames();
  expect(nameOf('a/x.png', 'a')).toBe('x.png');
  expect(nameOf('a/b/x.png', 'a')).toBe('b/x.png');
  expect(nameOf('c/x.png', 'c')).toBe('c/x.png');
  expect(nameOf('./c/x.png', 'c')).toMatch(/^[^.].*\/c\/x\.png$/);
  expect(nameOf('p/y.jpg', 'p')).toBe('y.jpg');
  expect(nameOf('p/y.png', 'p')).toBe('y.png');
  expect(nameOf('p/y.jpg.png', 'p')).toBe('p/y.jpg.png');
  const last = [1, 2, 3, 4, 5, 6, 7, 8, 9].map(() => outputNames()('/x.png', '/')).at(-1);
  expect(last).toBe('x.png');
  const again = outputNames();
  expect([again('/x.png', '/'), again('/x.png', '/'), again('/x.png', '/')]).toEqual([
    'x.png',
    'x 2.png',
    'x 3.png',
  ]);
  expect(['a.png', 'a.PNG', 'a.jpg', 'b/a'].map(pngName)).toEqual(['a.png', 'a.PNG', 'a.jpg.png', 'b/a.png']);
});
