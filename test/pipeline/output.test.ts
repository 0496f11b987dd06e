import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import { parse } from 'csv-parse/sync';
import { describe, expect, test } from 'vitest';
import { dropTornLine, notDone, takeUp } from '../../src/pipeline/command/shared/earlier-results.ts';
import { PathSet } from '../../src/pipeline/command/shared/path-set.ts';
import { createReporter, duration, progressLine, short } from '../../src/pipeline/command/shared/progress.ts';
import { type DataFormat, headerOf, lineOf } from '../../src/pipeline/command/shared/result-lines.ts';
import { fileWriter, streamWriter } from '../../src/pipeline/command/shared/writers.ts';
import type { Classified, ItemFailure } from '../../src/pipeline/types.ts';
import { collect } from './fake-model.ts';
import { temporaryFolder } from './image-files.ts';

const classified = (path: string): Classified => ({
  path,
  label: 'a, "b"',
  classidx: 1,
  probability: 0.75,
  top: [{ label: 'a, "b"', classidx: 1, probability: 0.75, error: 0.5, stderr: 0, evaluations: 3 }],
  margin: 0.5,
  decided: true,
  evaluations: 7,
  seconds: 0.25,
  seed: 0,
  model: 'fake',
});

const failed = (path: string): ItemFailure => ({
  path,
  error: { code: 'empty', message: 'the file has 0 bytes' },
});

describe('format', () => {
  test('a JSON line is the result itself', () => {
    expect(JSON.parse(lineOf(classified('x.png'), 'jsonl', { timings: true }))).toEqual(classified('x.png'));
    const { seconds: _, ...timeless } = classified('x.png');
    expect(JSON.parse(lineOf(classified('x.png'), 'jsonl'))).toEqual(timeless);
    expect(lineOf(failed('x.png'), 'jsonl')).toBe(
      '{"path":"x.png","error":{"code":"empty","message":"the file has 0 bytes"}}\n',
    );
  });

  test('CSV can be read back for any path', () => {
    const path = 'a,"b"\nc.png';
    const text = headerOf('csv') + lineOf(classified(path), 'csv') + lineOf(failed('y.png'), 'csv');
    const [first, second] = parse(text, { columns: true }) as Record<string, string>[];
    expect(first).toMatchObject({
      path,
      label: 'a, "b"',
      probability: '0.75',
      decided: 'true',
      error_code: '',
    });
    expect(JSON.parse(first!.top!)).toEqual(classified(path).top);
    expect(second).toMatchObject({ path: 'y.png', label: '', error_code: 'empty' });
  });
});

describe('resume', () => {
  const paths = ['a.png', 'b\nb.png', 'c "c".png'];
  const text = (format: DataFormat) =>
    headerOf(format) + paths.map((path) => lineOf(classified(path), format)).join('');

  test.each(['jsonl', 'csv'] as const)(
    '%s: whole lines are found after a truncation at any byte',
    async (format) => {
      const file = join(temporaryFolder(), 'out');
      const whole = Buffer.from(text(format));
      const ends = [headerOf(format).length];
      for (const path of paths) ends.push(ends.at(-1)! + Buffer.byteLength(lineOf(classified(path), format)));
      for (let length = 0; length <= whole.length; length += 7) {
        writeFileSync(file, whole.subarray(0, length));
        const { done, bytes } = await takeUp(file, format);
        const lines = ends.filter((end) => end <= length).length - 1;
        expect(done.size).toBe(Math.max(0, lines));
        expect(paths.filter((path) => done.has(path))).toEqual(paths.slice(0, Math.max(0, lines)));
        expect(readFileSync(file).length).toBe(bytes);
        expect(bytes).toBe(lines < 0 ? 0 : ends[lines]);
      }
    },
  );

  test('a torn line of full length is dropped, a foreign line in the middle is rejected', async () => {
    const file = join(temporaryFolder(), 'out');
    writeFileSync(file, `${text('jsonl')}\0\0\0\0\n`);
    expect((await takeUp(file, 'jsonl')).done.size).toBe(3);
    expect(readFileSync(file, 'utf8')).toBe(text('jsonl'));
    writeFileSync(file, `{"path":"a"}\nhello\n{"path":"b"}\n`);
    await expect(takeUp(file, 'jsonl')).rejects.toThrow('line 2 is not a jsonl result');
    writeFileSync(file, 'precious\n');
    await expect(takeUp(file, 'jsonl')).rejects.toThrow('holds no jsonl results');
    expect(readFileSync(file, 'utf8')).toBe('precious\n');
  });

  test('a missing file has no results; a folder cannot be read', async () => {
    const folder = temporaryFolder();
    expect((await takeUp(join(folder, 'none'), 'csv')).done.size).toBe(0);
    await expect(takeUp(folder, 'csv')).rejects.toThrow('cannot be read (EISDIR)');
  });

  test('torn lines of a log are dropped', async () => {
    const file = join(temporaryFolder(), 'log');
    for (const [before, after] of [
      ['a\nb\nc', 'a\nb\n'],
      ['abc', ''],
      ['a\n', 'a\n'],
      ['', ''],
    ] as const) {
      writeFileSync(file, before);
      await dropTornLine(file);
      expect(readFileSync(file, 'utf8')).toBe(after);
    }
    await dropTornLine(`${file}-missing`);
  });

  test('only items without a result pass, and failures', async () => {
    const done = new PathSet();
    for (const path of ['a', 'c', 'd']) done.add(path);
    const source = (async function* () {
      yield* ['a', 'b', failed('c'), failed('e'), 'd'];
    })();
    let skipped = 0;
    expect(await collect(notDone(source, done, () => skipped++))).toEqual(['b', failed('e')]);
    expect(skipped).toBe(3);
  });
});

describe('PathSet', () => {
  test('distinguishes 100,000 paths', () => {
    const set = new PathSet();
    let added = 0;
    for (let i = 0; i < 100_000; i++) if (set.add(`folder/${i}.png`)) added++;
    expect(added).toBe(100_000);
    expect(set.size).toBe(100_000);
    for (let i = 0; i < 100_000; i += 97) expect(set.add(`folder/${i}.png`)).toBe(false);
    for (let i = 0; i < 1000; i++) expect(set.has(`other/${i}.png`)).toBe(false);
  });
});

describe('writers', () => {
  test('wait for a slow reader', async () => {
    let taken = 0;
    const slow = new Writable({
      highWaterMark: 1,
      write: (_, __, done) => {
        taken++;
        setImmediate(done);
      },
    });
    const writer = streamWriter(slow);
    for (let i = 1; i <= 5; i++) {
      await writer.write('line\n');
      expect(taken).toBe(i);
    }
  });

  test('report a closed pipe, and throw other errors', async () => {
    const broken = (code: string) =>
      new Writable({ write: (_, __, done) => done(Object.assign(new Error(code), { code })) });
    const writer = streamWriter(broken('EPIPE'));
    await writer.write('line\n');
    expect(writer.closed).toBe(true);
    await writer.write('line\n');
    await expect(streamWriter(broken('ENOSPC')).write('line\n')).rejects.toThrow('ENOSPC');
  });

  test('keep lines of many callers whole and in order', async () => {
    const file = join(temporaryFolder(), 'out');
    const writer = await fileWriter(file, false);
    const lines = Array.from({ length: 200 }, (_, i) => `${i} ${'x'.repeat(i * 10)}\n`);
    await Promise.all(lines.map((line) => writer.write(line)));
    await writer.close();
    expect(readFileSync(file, 'utf8')).toBe(lines.join(''));
    const again = await fileWriter(file, true);
    await again.write('end\n');
    await again.close();
    expect(readFileSync(file, 'utf8')).toBe(`${lines.join('')}end\n`);
  });

  test('throw one sentence if the file cannot be written', async () => {
    await expect(fileWriter(join(temporaryFolder(), 'none', 'out'), false)).rejects.toThrow(
      'cannot be written (ENOENT)',
    );
  });
});

describe('progress', () => {
  const state = (images: number, seconds: number, failures = 0) => ({
    images,
    failures,
    evaluations: images * 10,
    seconds,
    imagesPerSecond: images / seconds,
  });

  test('is readable text', () => {
    expect([0.42, 42, 187, 8100].map(duration)).toEqual(['0.4 s', '42 s', '3:07', '2:15:00']);
    expect([1.2345, 12.345, 123.45, 12345].map(short)).toEqual(['1.23', '12.3', '123', '12,345']);
    expect(progressLine(state(100, 10, 2), 10, 50, 1150)).toBe(
      '150 of 1,150 images, 10 images/s, ETA 1:40, 2 failed',
    );
    expect(progressLine(state(100, 10), 10, 0, undefined)).toBe('100 images, 10 images/s');
  });

  test('updates one line on a terminal, and clears it for a message; --quiet prints nothing', () => {
    const texts: string[] = [];
    let time = 0;
    const terminal = Object.assign(new PassThrough(), {
      isTTY: true,
      columns: 40,
      write: (text: string) => texts.push(text),
    });
    const reporter = createReporter(terminal, 'info', { now: () => time });
    for (time = 100; time <= 1000; time += 50) reporter.progress(state(time, time / 1000), 0, undefined);
    reporter.log('warn', 'stop');
    expect(texts.filter((text) => text.startsWith('\r') && text.includes('images'))).toHaveLength(10);
    expect(texts.slice(-2)).toEqual(['\r\x1b[K', 'diffclass-stream: stop\n']);
    const quiet = createReporter(terminal, 'error', { now: () => time });
    texts.length = 0;
    quiet.progress(state(9, 9), 0, undefined);
    quiet.log('warn', 'nothing');
    quiet.clear();
    expect(texts).toEqual([]);
  });
});
