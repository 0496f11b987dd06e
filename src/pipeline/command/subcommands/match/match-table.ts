// Tables of images and the captions that belong to them, read row by row.

import { dirname, resolve } from 'node:path';
import { z } from 'zod';
import { UsageError } from '../../../../errors.ts';
import { PathSet } from '../../shared/path-set.ts';
import { tableRows } from '../../shared/table-rows.ts';

/** Images and captions that may be mixed up: `images[i]` belongs to `captions[i]`. */
export interface MatchItem {
  readonly item: string;
  readonly images: readonly string[];
  readonly captions: readonly string[];
}

const itemRow = z.object({ item: z.string().min(1), image: z.string().min(1), caption: z.string() });

/**
 * Yields the items of a CSV table with the columns item, image and caption, the rows of an item one after the other;
 * other columns are ignored, and paths of images are relative to the table. Streams: what it remembers of
 * earlier items is a few bytes each.
 *
 * @throws UsageError naming the file and the line, also for an item of a single row, or whose rows are apart.
 */
export async function* readItems(path: string): AsyncGenerator<MatchItem> {
  const seen = new PathSet();
  const folder = dirname(path);
  let item = '';
  let first = 0;
  let images: string[] = [];
  let captions: string[] = [];
  const finished = (): MatchItem => {
    if (images.length < 2)
      throw new UsageError(`${path}, line ${first}: item "${item}" has one row; expected two or more`);
    return { item, images, captions };
  };
  for await (const { row: next, line } of tableRows(path, itemRow)) {
    if (next.item !== item) {
      if (images.length > 0) yield finished();
      if (!seen.add(next.item))
        throw new UsageError(
          `${path}, line ${line}: item "${next.item}" appeared before; expected all its rows together`,
        );
      [item, first, images, captions] = [next.item, line, [], []];
    }
    images.push(resolve(folder, next.image));
    captions.push(next.caption);
  }
  if (images.length === 0) throw new UsageError(`${path}: holds no items`);
  yield finished();
}

/** The largest number of prompts that a model is opened with; it keeps data for each of them. */
const PROMPTS = 64;

/** Groups items so that a group has at most `most` different captions, and at least one item. */
export async function* inGroups(
  items: AsyncIterable<MatchItem>,
  most = PROMPTS,
): AsyncGenerator<readonly MatchItem[]> {
  let group: MatchItem[] = [];
  const captions = new Set<string>();
  for await (const next of items) {
    const fresh = new Set(next.captions.filter((caption) => !captions.has(caption)));
    if (group.length > 0 && captions.size + fresh.size > most) {
      yield group;
      group = [];
      captions.clear();
    }
    group.push(next);
    for (const caption of next.captions) captions.add(caption);
  }
  if (group.length > 0) yield group;
}
