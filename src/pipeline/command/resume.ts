// Taking up a run that was ended: which images its output holds already, and where its last whole line ends.

import { createReadStream } from 'node:fs';
import { stat, truncate } from 'node:fs/promises';
import { parse } from 'csv-parse/sync';
import { UsageError } from '../errors.ts';
import { systemCode } from '../images/failures.ts';
import type { Found } from '../images/sources.ts';
import { type Format, headerOf } from './format.ts';
import { PathSet } from './pathset.ts';

/** Bytes that a line of results may have. */
const LONGEST = 64 * 2 ** 20;

interface Line {
  readonly text: string;
  /** Bytes of the file up to and with its line feed. */
  readonly end: number;
}

/** The whole lines of a file; in CSV a line feed between quotes belongs to the line. */
export async function* wholeLines(path: string, format: Format): AsyncGenerator<Line> {
  let rest = Buffer.alloc(0);
  let end = 0;
  for await (const chunk of createReadStream(path)) {
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

/** Bytes of the first line with its line feed; 0 when it is not whole. */
function lineLength(bytes: Buffer, format: Format): number {
  let at = bytes.indexOf(10);
  if (format === 'jsonl' || at < 0) return at + 1;
  let quotes = 0;
  for (let seen = 0; at >= 0; at = bytes.indexOf(10, at + 1)) {
    for (; seen < at; seen++) if (bytes[seen] === 34) quotes++;
    if (quotes % 2 === 0) return at + 1;
  }
  return 0;
}

/** The path of a result's line, or undefined when it is none. */
function pathOf(line: string, format: Format): string | undefined {
  try {
    const value: unknown = format === 'jsonl' ? JSON.parse(line)?.path : parse(line)[0]?.[0];
    return typeof value === 'string' ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Runs what reads a file; one that does not exist yet holds nothing. @throws UsageError where it cannot be read. */
export async function ifThere(path: string, read: () => Promise<void>): Promise<void> {
  try {
    await read();
  } catch (error) {
    const code = systemCode(error);
    if (code === undefined) throw error;
    if (code !== 'ENOENT') throw new UsageError(`${path}: cannot be read (${code})`);
  }
}

/** What an earlier run left: the paths that have a line, and the bytes of its whole lines. */
export interface Earlier {
  readonly done: PathSet;
  readonly bytes: number;
}

/**
 * Reads the results of an earlier run and cuts the file behind its last whole line, so that it can be appended
 * to. Streams; what stays in memory is a `PathSet`. A file that does not exist yet holds nothing.
 *
 * @throws UsageError when the file holds something else than results of this format (with these columns), or cannot
 *   be read.
 */
export async function takeUp(path: string, format: Format, energy = false): Promise<Earlier> {
  const done = new PathSet();
  let size = 0;
  let number = 0;
  let unreadable = 0;
  await ifThere(path, async () => {
    for await (const { text, end } of wholeLines(path, format)) {
      number++;
      if (unreadable > 0) throw new UsageError(`${path}: line ${unreadable} is not a ${format} result`);
      const header = number === 1 && `${text}\n` === headerOf(format, energy);
      if (number === 1 && format === 'csv' && `${text}\n` === headerOf(format, !energy))
        throw new UsageError(`${path}: has the columns of a run with${energy ? 'out' : ''} --energy`);
      const found = header || text === '' ? '' : pathOf(text, format);
      if (found === undefined) unreadable = number;
      else size = end;
      if (found) done.add(found);
    }
    if (unreadable === 1) throw new UsageError(`${path}: holds no ${format} results`);
    if ((await stat(path)).size > size) await truncate(path, size);
  });
  return { done, bytes: size };
}

/** Cuts a file of lines behind its last line feed, so that it can be appended to. */
export async function dropTornLine(path: string): Promise<void> {
  let size = 0;
  let whole = 0;
  try {
    for await (const chunk of createReadStream(path)) {
      const bytes = chunk as Buffer;
      const last = bytes.lastIndexOf(10);
      if (last >= 0) whole = size + last + 1;
      size += bytes.length;
    }
    if (size > whole) await truncate(path, whole);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
  }
}

/** What is not done yet; `onSkip` is told of the others. */
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
