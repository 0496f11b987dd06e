// True classes from a table of paths, for images that are not in class folders.

import { readFile } from 'node:fs/promises';
import { parse } from 'csv-parse/sync';
import { z } from 'zod';
import { UsageError } from '../errors.ts';
import { systemCode } from '../images/failures.ts';
import { classOf } from '../images/labelled.ts';
import { nearest } from './candidates.ts';

const row = z.object({ path: z.string().min(1), label: z.string().min(1) });

/** A row of a table. */
export type LabelRow = z.output<typeof row>;

/**
 * Reads a CSV table with the columns path and label; others are ignored.
 *
 * @throws UsageError naming the file and the line.
 */
export async function readLabels(path: string): Promise<LabelRow[]> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new UsageError(`${path}: cannot be read (${systemCode(error) ?? error})`);
  });
  let records: { readonly record: unknown; readonly info: { readonly lines: number } }[];
  try {
    records = parse(text, { columns: true, bom: true, skip_empty_lines: true, trim: true, info: true });
  } catch (error) {
    throw new UsageError(`${path}: is not CSV: ${error instanceof Error ? error.message : error}`);
  }
  if (records.length === 0) throw new UsageError(`${path}: holds no labels`);
  return records.map(({ record, info }) => {
    const result = row.safeParse(record);
    if (result.success) return result.data;
    throw new UsageError(`${path}, line ${info.lines}: wanted the columns path and label, both filled`);
  });
}

/**
 * The place of a class among a classifier's, from what a set calls it: a name or a number.
 *
 * @throws UsageError where the model has no such class.
 */
export function placeOf(
  label: string,
  path: string,
  classes: readonly { readonly label: string; readonly classidx: number }[],
): number {
  const classidx = classOf(label, classes);
  const place = classes.findIndex((one) => one.classidx === classidx);
  if (place >= 0) return place;
  const names = classes.map((one) => one.label);
  throw new UsageError(
    `${path}: the model has no class "${label}"; the nearest is "${nearest(label, names)}" (a number counts from 0)`,
  );
}
