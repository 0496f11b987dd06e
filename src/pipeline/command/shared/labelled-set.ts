// The chosen images of a labelled set, each with its path within the set.

import { stat } from 'node:fs/promises';
import { dirname, isAbsolute, join, relative, sep } from 'node:path';
import { decodeFile } from '../../node/decode.ts';
import { findLabelled, type Labelled } from '../../node/labelled.ts';
import { type ItemFailure, isFailure } from '../../types.ts';
import { readLabels } from './truths.ts';

/** A set, and which of its images are taken. */
export interface SetChoice {
  readonly set: string;
  /** A table of labels with paths relative to it; or `folders`, which is the default for a folder. */
  readonly truth?: string | undefined;
  /** A table of labels with paths relative to `set`. */
  readonly labelsCsv?: string | undefined;
  /** How many images; all if absent. */
  readonly images?: number | undefined;
}

/** An image of a set; `key` is its path within the set, the same wherever the set lies. */
export interface SetImage extends Labelled {
  readonly key: string;
}

/** Spreads `count` images over the classes as evenly as their sizes allow; earlier classes come first. */
export function quotas(available: ReadonlyMap<string, number>, count: number): Map<string, number> {
  const taken = new Map([...available.keys()].map((label) => [label, 0]));
  let left = count;
  for (let before = -1; left > 0 && left !== before; ) {
    before = left;
    for (const [label, size] of available)
      if (left > 0 && taken.get(label)! < size) {
        taken.set(label, taken.get(label)! + 1);
        left--;
      }
  }
  return taken;
}

const isFolder = (path: string) =>
  stat(path).then(
    (info) => info.isDirectory(),
    () => false,
  );

/** Yields the chosen images of a set, at most `choice.images`: the first ones, or from class folders as many of each class. */
export async function* imagesOf(choice: SetChoice): AsyncGenerator<SetImage | ItemFailure> {
  const root = (await isFolder(choice.set)) ? choice.set : dirname(choice.set);
  for await (const item of chosen(choice, root === choice.set))
    yield isFailure(item) ? item : { ...item, key: relative(root, item.path).split(sep).join('/') };
}

async function* chosen(
  { set, truth, labelsCsv, images: limit = Number.POSITIVE_INFINITY }: SetChoice,
  folder: boolean,
): AsyncGenerator<Labelled | ItemFailure> {
  const table = truth === 'folders' ? undefined : (truth ?? labelsCsv);
  const base = labelsCsv === undefined ? dirname(table ?? '') : set;
  const all = () => (table === undefined ? findLabelled(set) : inTable(base, table));
  if (table !== undefined || !folder || !Number.isFinite(limit)) {
    let count = 0;
    for await (const item of all()) {
      if (count++ >= limit) return;
      yield item;
    }
    return;
  }
  const available = new Map<string, number>();
  for await (const item of all())
    if (!isFailure(item)) available.set(item.label, (available.get(item.label) ?? 0) + 1);
  const left = quotas(available, limit);
  for await (const item of all()) {
    if (isFailure(item)) continue;
    const count = left.get(item.label) ?? 0;
    left.set(item.label, count - 1);
    if (count > 0) yield item;
  }
}

async function* inTable(folder: string, table: string): AsyncGenerator<Labelled> {
  for (const { path, label } of await readLabels(table)) {
    const whole = isAbsolute(path) ? path : join(folder, path);
    yield { path: whole, label, pixels: () => decodeFile(whole) };
  }
}

/** Counts the chosen images. @throws UsageError if the set cannot be read, or holds no labelled images. */
export async function countImages(choice: SetChoice): Promise<number> {
  let count = 0;
  for await (const _ of imagesOf(choice)) count++;
  return count;
}

/** Checks the first image of a set. @throws UsageError if the set cannot be read, or holds no labelled images. */
export async function checkSet(choice: SetChoice): Promise<void> {
  for await (const _ of imagesOf({ ...choice, images: undefined })) return;
}
