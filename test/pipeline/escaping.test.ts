// Tests paths of any bytes, and texts that are safe to show.

import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { takeUp } from '../../src/pipeline/command/shared/earlier-results.ts';
import { headerOf, lineOf, textOfCell } from '../../src/pipeline/command/shared/result-lines.ts';
import {
  bytesOfPath,
  escaped,
  pathFromBytes,
  printable,
  safeJson,
  unescaped,
} from '../../src/pipeline/escaping.ts';
import { systemPath } from '../../src/pipeline/node/system-path.ts';
import { temporaryFolder, write } from './image-files.ts';

/** Bytes of names, which are hostile more often than random ones. */
const anyBytes = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 40 }),
  fc
    .array(
      fc.constantFrom(
        '=',
        '+',
        '-',
        '@',
        "'",
        '"',
        ',',
        '\\xE9',
        '\\',
        '\x1b[31m',
        '\n',
        '\r',
        '\t',
        '\u202e',
        'é',
        '猫',
        'a',
      ),
      { minLength: 1, maxLength: 8 },
    )
    .map((parts) => Buffer.from(parts.join(''))),
);

/** Characters that control a terminal or reorder a line. */
const UNSAFE = /[\p{Cc}\u202a-\u202e\u2066-\u2069\ud800-\udfff]/u;

describe('paths', () => {
  test('represent bytes that are not UTF-8 as lone surrogates, as in Python', () => {
    const path = pathFromBytes(Buffer.from('caf\xe9.png', 'latin1'));
    expect(path).toBe('caf\udce9.png');
    expect(JSON.stringify(path)).toBe('"caf\\udce9.png"');
    expect(systemPath(path)).toEqual(Buffer.from('caf\xe9.png', 'latin1'));
    expect(systemPath('café.png')).toBe('café.png');
  });

  test('convert every sequence of bytes to text and back', () => {
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        const path = pathFromBytes(bytes);
        expect(Buffer.from(bytesOfPath(path))).toEqual(Buffer.from(bytes));
        expect(JSON.parse(safeJson(path))).toBe(path);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('escapes', () => {
  test('replace control characters by the codes of their bytes', () => {
    expect(escaped('a\x1b[31mb\u202ec\u009bd')).toBe('a\\x1B[31mb\\xE2\\x80\\xAEc\\xC2\\x9Bd');
    expect(escaped('caf\udce9 \\xE9 C:\\x')).toBe('caf\\xE9 \\x5CxE9 C:\\x');
    expect(printable('a\nb\t', '\n')).toBe('a\nb\\x09');
  });

  test('leave nothing unsafe, and can be reversed', () => {
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        const path = pathFromBytes(bytes);
        expect(escaped(path)).not.toMatch(UNSAFE);
        expect(safeJson(path)).not.toMatch(UNSAFE);
        expect(unescaped(escaped(path))).toBe(path);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('CSV', () => {
  const failure = (path: string) => ({ path, error: { code: 'empty', message: 'the file has 0 bytes' } });

  test.each(['=cmd()', '+1', '-1', '@sum', '\tx', '＝1', "'=1"])(
    'does not start a cell with %j as a formula',
    (path) => {
      const cell = lineOf(failure(path), 'csv').split(',')[0]!;
      expect(cell).toMatch(/^'/);
      expect(textOfCell(cell)).toBe(path);
    },
  );

  test('has a valid and harmless cell for any path, and reads it back', () => {
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        const path = pathFromBytes(bytes);
        const [row] = parse(lineOf(failure(path), 'csv')) as string[][];
        expect(row).toHaveLength(headerOf('csv').split(',').length);
        expect(row![0]).not.toMatch(/^[=+\-@\t\r]/);
        expect(row![0]!.replaceAll(/[\t\r\n]/g, '')).not.toMatch(UNSAFE);
        expect(textOfCell(row![0]!)).toBe(path);
      }),
      { numRuns: 2000 },
    );
  });

  test('keeps numbers unchanged', () => {
    const result = {
      path: 'a',
      label: '-1',
      classidx: 0,
      probability: 1,
      top: [],
      margin: 1,
      decided: true,
      evaluations: 1,
      seconds: 1,
      seed: 0,
      model: 'm',
      energy: -12.5,
      energyLevels: 3,
    };
    const line = lineOf(result, 'csv', { energy: true, timings: true });
    expect(line).toMatch(/^a,'-1,0,/);
    expect(line).toMatch(/,-12\.5,3\n$/);
    expect(line.split(',')).toHaveLength(headerOf('csv', { energy: true, timings: true }).split(',').length);
  });

  test('a resumed run recognises every path, in both formats', async () => {
    const paths = [
      '=cmd()',
      "'=cmd()",
      '-x.png',
      'a\nb.png',
      'caf\udce9.png',
      'caf\\xE9.png',
      '\x1b[2J.png',
      'C:\\x',
    ];
    const folder = temporaryFolder();
    const result = (path: string) => ({
      path,
      label: 'a',
      classidx: 0,
      probability: 1,
      top: [],
      margin: 1,
      decided: true,
      evaluations: 1,
      seconds: 1,
      seed: 0,
      model: 'm',
    });
    for (const format of ['csv', 'jsonl'] as const) {
      write(folder, {
        [format]: headerOf(format) + paths.map((path) => lineOf(result(path), format)).join(''),
      });
      const { done } = await takeUp(join(folder, format), format);
      expect(done.size).toBe(paths.length);
      expect(paths.filter((path) => !done.has(path))).toEqual([]);
    }
  });
});
