// Tables in CSV files, row by row.

import { createReadStream } from 'node:fs';
import { parse } from 'csv-parse';
import { UsageError } from './errors.ts';
import { systemCode } from './images/failures.ts';

/** A row of a table: its texts by the names of their columns, and the line of the file that it ends in, from 1. */
export interface CsvRow {
  readonly row: Readonly<Record<string, string>>;
  readonly line: number;
}

/**
 * The rows of a CSV file behind the one that names the columns; empty lines, spaces around values and a byte order
 * mark do not count. Streams.
 *
 * @throws UsageError naming the file, where it cannot be read or is not CSV.
 */
export async function* csvRows(path: string): AsyncGenerator<CsvRow> {
  const parser = parse({ columns: true, bom: true, skip_empty_lines: true, trim: true, info: true });
  const file = createReadStream(path);
  file.on('error', (error) => parser.destroy(error));
  file.pipe(parser);
  try {
    for await (const { record, info } of parser as AsyncIterable<{
      readonly record: CsvRow['row'];
      readonly info: { readonly lines: number };
    }>)
      yield { row: record, line: info.lines };
  } catch (error) {
    const code = systemCode(error);
    if (code !== undefined) throw new UsageError(`${path}: cannot be read (${code})`);
    throw new UsageError(`${path}: is not CSV: ${error instanceof Error ? error.message : error}`);
  } finally {
    file.destroy();
  }
}
