// Reads true classes from a table of paths, and finds them among the classes of a model.

import { UsageError } from '../../../errors.ts';
import { classOf, type LabelRow, labelRows } from '../../node/labelled.ts';
import { nearest } from './candidates.ts';

/** Returns all rows of a table with the columns path and label (see `labelRows`). @throws UsageError if it has none. */
export async function readLabels(path: string): Promise<LabelRow[]> {
  const rows: LabelRow[] = [];
  for await (const row of labelRows(path)) rows.push(row);
  if (rows.length === 0) throw new UsageError(`${path}: holds no labels`);
  return rows;
}

/**
 * Returns the index of a class among those of a classifier, given its name or number in a labelled set.
 *
 * @throws UsageError if the model has no such class.
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
