// Finds labelled sets of images: a folder with one folder per class, a table of paths, or one file that holds them all.

import { opendir, stat } from 'node:fs/promises';
import { dirname, isAbsolute, join } from 'node:path';
import { ItemError, UsageError } from '../../errors.ts';
import { systemCode } from '../images/failures.ts';
import type { Pixels } from '../images/pixels.ts';
import { type ItemFailure, isFailure } from '../types.ts';
import { csvRows } from './csv.ts';
import { imageFrom, nameOf } from './image-from.ts';
import { readRecords, recordKind } from './record-files.ts';
import { findImages, isImage, type NamedImage } from './sources.ts';

/** An image that is not read yet, with the class that the set gives it, by name or number. */
export interface Labelled {
  readonly path: string;
  readonly label: string;
  /** Reads and decodes the image. Rejects with `ItemError` if that fails. */
  readonly pixels: () => Promise<Pixels>;
}

const reason = (error: unknown) => systemCode(error) ?? String(error);

/**
 * Yields the images of a labelled set in its order, at most `perClass` of each class. The set is a folder with one folder
 * per class, which may have sub-folders; a CSV file with the columns path and label, paths relative to the file; or an
 * IDX file or a CIFAR batch (see `readRecords`).
 *
 * @throws UsageError naming what cannot be read, or holds no images with labels.
 */
export async function* findLabelled(
  input: string,
  { perClass = Number.POSITIVE_INFINITY }: { readonly perClass?: number | undefined } = {},
): AsyncGenerator<Labelled | ItemFailure> {
  const info = await stat(input).catch((error: unknown) => {
    throw new UsageError(`${input}: cannot be read (${reason(error)})`);
  });
  const all = info.isDirectory() ? inFolders(input, perClass) : inFile(input);
  const taken = new Map<string, number>();
  let any = false;
  for await (const item of all) {
    any = true;
    if (!isFailure(item)) {
      const count = taken.get(item.label) ?? 0;
      if (count >= perClass) continue;
      taken.set(item.label, count + 1);
    }
    yield item;
  }
  if (!any)
    throw new UsageError(
      `${input}: expected a folder for each class, a CSV file with path and label, or an IDX or CIFAR file, got no labelled images`,
    );
}

async function* inFolders(path: string, perClass: number): AsyncGenerator<Labelled | ItemFailure> {
  const labels: string[] = [];
  for await (const entry of await opendir(path)) {
    const folder = entry.isSymbolicLink()
      ? (await stat(join(path, entry.name))).isDirectory()
      : entry.isDirectory();
    if (folder && !entry.name.startsWith('.')) labels.push(entry.name);
  }
  for (const label of labels.sort()) {
    let count = 0;
    for await (const found of findImages([join(path, label)])) {
      if (isImage(found)) yield ofImage(found, label);
      else yield found;
      if (++count >= perClass) break;
    }
  }
}

const ofImage = (image: string | NamedImage, label: string): Labelled => ({
  path: nameOf(image),
  label,
  pixels: () => imageFrom(image),
});

async function* inFile(path: string): AsyncGenerator<Labelled> {
  if (recordKind(path)) {
    try {
      for await (const { index, label, pixels } of readRecords(path))
        yield { path: `${path}#${index}`, label: String(label), pixels: async () => pixels };
    } catch (error) {
      if (error instanceof ItemError) throw new UsageError(`${path}: ${error.message}`);
      throw error;
    }
    return;
  }
  if (!/\.csv$/i.test(path))
    throw new UsageError(`${path}: expected a folder, a CSV file (path,label), an IDX file or a CIFAR batch`);
  for await (const { path: image, label } of labelRows(path))
    yield ofImage(isAbsolute(image) ? image : join(dirname(path), image), label);
}

/** A row of a table of labels. */
export interface LabelRow {
  readonly path: string;
  readonly label: string;
}

/**
 * Yields the rows of a CSV table with the columns path and label, and ignores other columns.
 *
 * @throws UsageError naming the file and the line.
 */
export async function* labelRows(table: string): AsyncGenerator<LabelRow> {
  for await (const { row, line } of csvRows(table)) {
    const { path, label } = row;
    if (!path || !label)
      throw new UsageError(`${table}, line ${line}: expected the columns path and label, both filled`);
    yield { path, label };
  }
}

/** Returns a name in lower case, its words joined by hyphens. */
export const folded = (name: string) =>
  name
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}]+/gu, '-')
    .replaceAll(/^-|-$/g, '');

/**
 * Returns the class of a model that a label of a set means: by name, whatever its case and punctuation (a folder cannot
 * be called T-shirt/top, but t-shirt-top), or else by number. Returns undefined if there is no such class.
 */
export function classOf(
  label: string,
  classes: readonly { readonly label: string; readonly classidx: number }[],
): number | undefined {
  const exact = classes.find((one) => one.label === label);
  if (exact) return exact.classidx;
  const alike = new Set(
    classes.filter((one) => folded(one.label) === folded(label)).map(({ classidx }) => classidx),
  );
  if (alike.size === 1) return [...alike][0];
  return /^\d+$/.test(label)
    ? classes.find(({ classidx }) => classidx === Number(label))?.classidx
    : undefined;
}
