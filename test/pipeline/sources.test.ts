import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { linesOf } from '../../src/pipeline/images/path-lines.ts';
import { nameOf } from '../../src/pipeline/node/image-from.ts';
import { findImages, isImage, type SourceOptions } from '../../src/pipeline/node/sources.ts';
import { mapOrdered, until } from '../../src/pipeline/stream/iterables.ts';
import { collect, turns } from './fake-model.ts';
import { goodImages, temporaryFolder, write } from './image-files.ts';

async function* bytes(...parts: readonly string[]) {
  for (const part of parts) yield Buffer.from(part);
}

/** Returns the paths that are found, relative to the folder, and failures as `path: code`. */
async function found(
  folder: string,
  inputs: readonly string[],
  options: SourceOptions = {},
): Promise<string[]> {
  const items = await collect(findImages(inputs, options));
  return items.map((item) => {
    const text = isImage(item) ? nameOf(item) : `${item.path}: ${item.error.code}`;
    return text.replace(`${folder}/`, '').replace(folder, '.');
  });
}

describe('folders', () => {
  test('give images at any depth, sorted, without other or hidden files', async () => {
    const folder = temporaryFolder();
    write(folder, {
      'b.png': '',
      'a.JPG': '',
      'c.txt': '',
      '.hidden.png': '',
      '._a.png': '',
      'sub/d.webp': '',
      'sub/deep/e.tiff': '',
      '.git/f.png': '',
      README: '',
      png: '',
    });
    expect(await found(folder, [folder])).toEqual(['a.JPG', 'b.png', 'sub/d.webp', 'sub/deep/e.tiff']);
  });

  test('follow links, end loops, and report a broken link once', async () => {
    const folder = temporaryFolder();
    const other = temporaryFolder();
    write(other, { 'x.png': '', back: `->${folder}` });
    write(folder, {
      'a.png': '',
      'gone.png': '->nowhere',
      lost: '->nowhere',
      'notes.md': '->nowhere',
      loop: '->.',
      'sub/up': '->..',
      self: '->self',
      other: `->${other}`,
    });
    expect(await found(folder, [folder])).toEqual([
      'a.png',
      'gone.png: not-found',
      'lost: not-found',
      'other/x.png',
    ]);
  });

  test('that are removed during the run are one failure', async () => {
    const folder = temporaryFolder();
    write(folder, { 'a/1.png': '', 'b/2.png': '', 'c/3.png': '' });
    const paths: string[] = [];
    for await (const item of findImages([folder])) {
      paths.push(isImage(item) ? nameOf(item) : `${item.path}: ${item.error.code}`);
      if (paths.length === 1) rmSync(join(folder, 'b'), { recursive: true });
    }
    expect(paths).toEqual([
      join(folder, 'a/1.png'),
      `${join(folder, 'b')}: not-found`,
      join(folder, 'c/3.png'),
    ]);
  });

  test('give all of 10,000 files, one by one', async () => {
    const folder = temporaryFolder();
    const names = Array.from({ length: 10_000 }, (_, i) => [`${i}.png`, ''] as const);
    write(folder, Object.fromEntries(names));
    const paths = new Set(await collect(findImages([folder])));
    expect(paths.size).toBe(10_000);
    const source = findImages([folder]);
    await source.next();
    await source.return(undefined); // closes the folder before its end
  });
});

describe('patterns', () => {
  const tree = () => {
    const folder = temporaryFolder();
    write(folder, {
      'a.png': '',
      'b.jpg': '',
      'n.txt': '',
      'x/c.png': '',
      'x/y/d.png': '',
      'z[1].png': '',
      'w.dat': '',
    });
    return folder;
  };

  test.each([
    ['*.png', ['a.png', 'z[1].png']],
    ['*', ['a.png', 'b.jpg', 'z[1].png']],
    ['*.dat', ['w.dat']],
    ['**/*.png', ['a.png', 'x/c.png', 'x/y/d.png', 'z[1].png']],
    ['*/c.*', ['x/c.png']],
    ['{a,b}.{png,jpg}', ['a.png', 'b.jpg']],
    ['z[1].png', ['z[1].png']],
    ['*.gif', ['*.gif: not-found']],
    ['missing.png', ['missing.png: not-found']],
  ])('%s', async (pattern, expected) => {
    const folder = tree();
    expect(await found(folder, [join(folder, pattern)])).toEqual(expected);
  });
});

describe('standard input', () => {
  test('has one path per line, for any chunks, line ends and empty lines', async () => {
    const lines = linesOf(bytes('a.p', 'ng\r\n\nbé', '.png\nc c.png'), '\n');
    expect(await collect(lines)).toEqual(['a.png', 'bé.png', 'c c.png']);
  });

  test('may split a character between chunks', async () => {
    const whole = Buffer.from('é\n');
    const pieces = (async function* () {
      yield whole.subarray(0, 1);
      yield whole.subarray(1);
    })();
    expect(await collect(linesOf(pieces, '\n'))).toEqual(['é']);
  });

  test('with -0 allows line feeds in names', async () => {
    expect(await collect(linesOf(bytes('a\nb.png\0c.png\0'), '\0'))).toEqual(['a\nb.png', 'c.png']);
  });

  test('keeps the start of a line that is longer than any path, and counts it once', async () => {
    const lines = await collect(linesOf(bytes('x'.repeat(100_000), 'x'.repeat(100_000), '\nb\n'), '\n'));
    expect(lines.map((line) => line.length)).toEqual([65_536, 1]);
    expect(await found('.', ['-'], { stdin: bytes(`${'x'.repeat(100_000)}\nnone\n`) })).toEqual([
      `${'x'.repeat(65_536)}: not-found`,
      'none: not-found',
    ]);
  });

  test('makes a line with a NUL byte a failure that says what to do', async () => {
    const stdin = bytes('a.png\0b.png\nnone\n');
    const items = await collect(findImages(['-'], { stdin }));
    expect(items).toMatchObject([
      { path: 'a.png\0b.png', error: { code: 'not-found', message: expect.stringContaining('use -0') } },
      { path: 'none', error: { code: 'not-found' } },
    ]);
  });

  test.each([
    ['UTF-8 with a byte order mark', Buffer.from('\ufeffa.png\r\né.png\r\n')],
    ['UTF-16, little-endian', Buffer.from('\ufeffa.png\r\né.png\r\n', 'utf16le')],
    ['UTF-16, big-endian', Buffer.from('\ufeffa.png\r\né.png\r\n', 'utf16le').swap16()],
  ])('%s, however it is cut', async (_, whole) => {
    for (const size of [1, 2, 5, 100]) {
      const pieces = (async function* () {
        for (let at = 0; at < whole.length; at += size) yield whole.subarray(at, at + size);
      })();
      expect(await collect(linesOf(pieces, '\n'))).toEqual(['a.png', 'é.png']);
    }
  });

  test('yields a short first line at once', async () => {
    const open = (async function* () {
      yield Buffer.from('a\n');
      await new Promise(() => {});
    })();
    expect(await linesOf(open, '\n').next()).toEqual({ done: false, value: 'a' });
  });

  test('that cannot be read is one sentence', async () => {
    const broken = (async function* () {
      yield Buffer.from('a\n');
      throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' });
    })();
    await expect(collect(linesOf(broken, '\n'))).rejects.toThrow('standard input cannot be read (EIO)');
  });

  test('may list files and folders; patterns are plain names in a list', async () => {
    const folder = temporaryFolder();
    write(folder, { 'a.png': '', 'sub/b.png': '', 'q/c.png': '' });
    const stdin = bytes(`${folder}/sub\n${folder}/*.png\n`);
    const items = await found(folder, [join(folder, 'a.png'), '-', join(folder, 'q')], { stdin });
    expect(items).toEqual(['a.png', 'sub/b.png', '*.png: not-found', 'q/c.png']);
  });
});

describe('iterables', () => {
  test('mapOrdered keeps the order and its bound', async () => {
    let pulled = 0;
    let done = 0;
    let ahead = 0;
    const source = (async function* () {
      for (; pulled < 50; pulled++) {
        ahead = Math.max(ahead, pulled - done);
        yield pulled;
      }
    })();
    const results: number[] = [];
    for await (const value of mapOrdered(source, 4, async (n) => {
      await turns(n % 3);
      return n;
    })) {
      results.push(value);
      done++;
    }
    expect(results).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect(ahead).toBeLessThanOrEqual(4);
  });

  test('mapOrdered throws an error at its position', async () => {
    const seen: number[] = [];
    const run = async () => {
      for await (const value of mapOrdered(linesOf(bytes('1\n2\n3\n'), '\n'), 3, async (line) => {
        if (line === '2') throw new Error('two');
        return Number(line);
      }))
        seen.push(value);
    };
    await expect(run()).rejects.toThrow('two');
    expect(seen).toEqual([1]);
  });

  test('until ends a source that never yields', async () => {
    const controller = new AbortController();
    const silent = { [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }) };
    const ended = collect(until(silent, controller.signal));
    controller.abort();
    expect(await ended).toEqual([]);
  });

  test('goodImages keeps the order', async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, 'empty'));
    const paths = goodImages(folder, 5);
    expect(await collect(findImages([folder]))).toEqual(paths);
  });
});
