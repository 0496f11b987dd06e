// Reads tables in CSV files, row by row.

import { readFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { parse } from 'csv-parse';
import { UsageError } from '../../errors.ts';
import { systemCode } from '../images/failures.ts';
import { textOf } from '../images/text-encoding.ts';
import { systemPath } from './system-path.ts';

/** A row of a table: its texts by the names of their columns, and the line of the file in which it ends, from 1. */
interface CsvRow {
  readonly row: Readonly<Record<string, string>>;
  readonly line: number;
}

/** Separators of columns. Excel writes semicolons if the comma is the decimal separator. */
const SEPARATORS = [',', ';', '\t'] as const;

/** Returns the separator that is most frequent in the line of column names, outside quotes. */
function separatorOf(text: string): string {
  const names = /^(?:"[^"]*"|[^"\r\n])*/.exec(text.trimStart())?.[0].replaceAll(/"[^"]*"/g, '') ?? '';
  const counts = SEPARATORS.map((separator) => names.split(separator).length);
  return SEPARATORS[counts.indexOf(Math.max(...counts))]!;
}

/** Splits text into chunks, so that rows are parsed as they are pulled. */
function* chunksOf(text: string, size = 65_536): Generator<string> {
  for (let at = 0; at < text.length; at += size) yield text.slice(at, at + size);
}

/**
 * Yields the rows of a CSV file after the one that names the columns. Columns are separated by commas, semicolons or
 * tabs, whichever is most frequent in the row of names. The file is UTF-8, UTF-16 with a byte order mark, or
 * Windows-1252. Empty lines and spaces around values are ignored. Throws `UsageError` naming the file if it cannot be read
 * or is not CSV.
 */
export async function* csvRows(path: string): AsyncGenerator<CsvRow> {
  const bytes = await readFile(systemPath(path)).catch((error: unknown) => {
    throw new UsageError(`${path}: cannot be read (${systemCode(error) ?? error})`);
  });
  const text = textOf(bytes);
  const source = Readable.from(chunksOf(text));
  const parser = parse({
    columns: true,
    delimiter: separatorOf(text),
    skip_empty_lines: true,
    trim: true,
    info: true,
  });
  source.pipe(parser);
  try {
    for await (const { record, info } of parser as AsyncIterable<{
      readonly record: CsvRow['row'];
      readonly info: { readonly lines: number };
    }>)
      yield { row: record, line: info.lines };
  } catch (error) {
    throw new UsageError(`${path}: is not CSV: ${error instanceof Error ? error.message : error}`);
  } finally {
    source.destroy();
  }
}
