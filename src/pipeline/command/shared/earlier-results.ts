// Resumes a run: reads which images its output holds already, and makes the output ready for the others.

import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, rename, rm, stat, truncate } from 'node:fs/promises';
import { parse } from 'csv-parse/sync';
import { UsageError } from '../../../errors.ts';
import { systemCode } from '../../images/failures.ts';
import type { Found } from '../../node/sources.ts';
import { systemPath } from '../../node/system-path.ts';
import { PathSet } from './path-set.ts';
import { type DataFormat, headerOf, type LineOptions, textOfCell } from './result-lines.ts';

/** Bytes that a line of results may have at most. */
const LONGEST = 64 * 2 ** 20;

interface Line {
  readonly text: string;
  /** Bytes of the file up to the end of the line, line feed included. */
  readonly end: number;
}

/** Yields the whole lines of a file. In CSV, a line feed between quotes belongs to the line. */
export async function* wholeLines(path: string, format: DataFormat): AsyncGenerator<Line> {
  let rest = Buffer.alloc(0);
  let end = 0;
  for await (const chunk of createReadStream(systemPath(path))) {
    let bytes: Buffer = Buffer.concat([rest, chunk as Buffer]);
    for (;;) {
      const length = lineLength(bytes, format);
      if (length === 0) break;
      end += length;
      yield { text: bytes.toString('utf8', 0, length - 1), end };
      bytes = bytes.subarray(length);
    }
    if (bytes.length > LONGEST)
      throw new UsageError(`${path}: a line of more than ${LONGEST} bytes is not a result`);
    rest = Buffer.from(bytes);
  }
}

/** Returns the length of the first line in bytes, with its line feed; 0 if it is not whole. */
function lineLength(bytes: Buffer, format: DataFormat): number {
  let at = bytes.indexOf(10);
  if (format === 'jsonl' || at < 0) return at + 1;
  let quotes = 0;
  for (let seen = 0; at >= 0; at = bytes.indexOf(10, at + 1)) {
    for (; seen < at; seen++) if (bytes[seen] === 34) quotes++;
    if (quotes % 2 === 0) return at + 1;
  }
  return 0;
}

const textIn = (value: unknown) =>
  typeof value === 'string' || typeof value === 'number' ? String(value) : undefined;

/** Parses the result or the failed item in a line. Returns undefined if there is none. */
function earlierLine(line: string, format: DataFormat, options: LineOptions) {
  try {
    if (format === 'jsonl') {
      const { path, error, model, seed, precision = 'f32' } = JSON.parse(line);
      if (typeof path !== 'string') return undefined;
      const settings = { model: textIn(model), seed: textIn(seed), precision: textIn(precision) };
      return { path, failed: error !== undefined, ...settings };
    }
    const [row] = parse(line, { columns: headerOf('csv', options).trim().split(',') });
    const {
      path,
      error_code: code,
      model,
      seed,
      precision = 'f32',
    } = row as Readonly<Record<string, string>>;
    if (path === undefined) return undefined;
    return {
      path: textOfCell(path),
      failed: code !== '',
      model: model ? textOfCell(model) : undefined,
      seed: seed || undefined,
      precision,
    };
  } catch {
    return undefined;
  }
}

/** Runs `read` on a file; a file that does not exist counts as empty. @throws UsageError if it cannot be read. */
export async function ifThere(path: string, read: () => Promise<void>): Promise<void> {
  try {
    await read();
  } catch (error) {
    const code = systemCode(error);
    if (code === undefined) throw error;
    if (code !== 'ENOENT') throw new UsageError(`${path}: cannot be read (${code})`);
  }
}

/** What is found in a file before anything in it is changed. */
export interface EarlierResults {
  /** The number of images with a result; failed items do not count. */
  readonly results: number;
  /** The models, seeds and precisions in its lines. */
  readonly models: ReadonlySet<string>;
  readonly seeds: ReadonlySet<string>;
  readonly precisions: ReadonlySet<string>;
}

/**
 * Reads the results of an earlier run and makes the file ready to be appended to: a torn last line is dropped, and so are the
 * lines of failed items, which are tried again. The file is streamed; only a `PathSet` stays in memory. A file that does
 * not exist yet holds nothing.
 *
 * @param check throws if the results are not of this run; it is called before anything is changed.
 * @returns the images that have a result, and the bytes of the file now.
 * @throws UsageError if the file cannot be read or holds anything but results of this format (with these columns); and
 *   what `check` throws.
 */
export async function takeUp(
  path: string,
  format: DataFormat,
  { check, ...options }: LineOptions & { readonly check?: (found: EarlierResults) => void } = {},
) {
  const done = new PathSet();
  const models = new Set<string>();
  const seeds = new Set<string>();
  const precisions = new Set<string>();
  const header = headerOf(format, options);
  const read = (text: string) =>
    `${text}\n` === header || text === '' ? 'no item' : earlierLine(text, format, options);
  const isKept = (text: string) => {
    const line = read(text);
    return line === 'no item' || line?.failed === false;
  };
  let size = 0;
  let kept = 0;
  let number = 0;
  let unreadable = 0;
  await ifThere(path, async () => {
    for await (const { text, end } of wholeLines(path, format)) {
      number++;
      if (unreadable > 0) throw new UsageError(`${path}: line ${unreadable} is not a ${format} result`);
      const length = end - size;
      if (number === 1 && header !== '' && `${text}\n` !== header && text.startsWith('path,'))
        throw new UsageError(
          `${path}: expected the columns ${header.trim()}, got ${text}; repeat the earlier --energy, --timings and --precision, or leave out --resume`,
        );
      const line = read(text);
      if (line === undefined) {
        unreadable = number;
        continue;
      }
      size = end;
      if (line !== 'no item' && line.failed) continue;
      kept += length;
      if (line === 'no item') continue;
      done.add(line.path);
      if (line.model !== undefined) models.add(line.model);
      if (line.seed !== undefined) seeds.add(line.seed);
      if (line.precision !== undefined) precisions.add(line.precision);
    }
    if (unreadable === 1) throw new UsageError(`${path}: holds no ${format} results`);
    check?.({ results: done.size, models, seeds, precisions });
    if (kept < size) await keepLines(path, format, isKept);
    else await cutAt(path, size);
  });
  return { done, bytes: kept };
}

/** Characters that are written at a time. */
const WRITE_SIZE = 2 ** 20;

/** Rewrites a file with only some of its whole lines. The new file replaces the old one at once, or not at all. */
export async function keepLines(
  path: string,
  format: DataFormat,
  isKept: (text: string) => boolean,
): Promise<void> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  const { mode } = await stat(systemPath(path));
  const file = await open(systemPath(temporary), 'wx', mode);
  try {
    let waiting = '';
    for await (const { text } of wholeLines(path, format)) {
      if (isKept(text)) waiting += `${text}\n`;
      if (waiting.length < WRITE_SIZE) continue;
      await file.appendFile(waiting);
      waiting = '';
    }
    await file.appendFile(waiting);
    await file.sync();
    await file.close();
    await rename(systemPath(temporary), systemPath(path));
  } catch (error) {
    await file.close().catch(() => undefined);
    await rm(systemPath(temporary), { force: true });
    throw error;
  }
}

/** Cuts a file after its last whole line, which ends at `size`, so that it can be appended to. */
async function cutAt(path: string, size: number): Promise<void> {
  if ((await stat(systemPath(path))).size > size) await truncate(systemPath(path), size);
}

/** Cuts a file of JSON lines after its last whole line, so that it can be appended to. */
export const dropTornLine = (path: string): Promise<void> =>
  ifThere(path, async () => {
    let size = 0;
    for await (const { end } of wholeLines(path, 'jsonl')) size = end;
    await cutAt(path, size);
  });

/** Yields the images without a result, and calls `onSkip` for the others. */
export async function* notDone(
  found: AsyncIterable<Found>,
  done: Pick<PathSet, 'has'>,
  onSkip: () => void = () => {},
): AsyncGenerator<Found> {
  for await (const item of found) {
    if (done.has(typeof item === 'string' ? item : item.path)) onSkip();
    else yield item;
  }
}
