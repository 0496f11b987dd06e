// Reads CSV tables whose columns a schema checks.

import type { z } from 'zod';
import { UsageError } from '../../../errors.ts';
import { csvRows } from '../../node/csv.ts';

/** A table of texts: a schema for each column. */
type Columns = z.ZodObject<Record<string, z.ZodType>>;

/**
 * Yields the rows of a CSV table, each with the line of the file in which it ends; other columns are ignored.
 *
 * @throws UsageError naming the file, and the line or the missing column.
 */
export async function* tableRows<Schema extends Columns>(
  path: string,
  schema: Schema,
): AsyncGenerator<{ readonly row: z.output<Schema>; readonly line: number }> {
  for await (const { row: texts, line } of csvRows(path)) {
    const { data, error } = schema.safeParse(texts);
    if (!error) {
      yield { row: data, line };
      continue;
    }
    const column = String(error.issues[0]?.path[0]);
    const text = texts[column];
    const columns = Object.keys(schema.shape)
      .join(', ')
      .replace(/, ([^,]*)$/, ' and $1');
    throw new UsageError(
      text === undefined
        ? `${path}: expected the columns ${columns}; ${column} is missing`
        : `${path}, line ${line}: ${column} is ${text === '' ? 'empty' : `"${text}"`}`,
    );
  }
}
