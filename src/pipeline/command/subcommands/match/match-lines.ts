// The output of `match`: one line per item and a summary; and what --resume reads from it.

import { UsageError } from '../../../../errors.ts';
import { type Matches, scoreOf } from '../../../deciding/matching.ts';
import type { PairErrors } from '../../../stream/pair-errors.ts';
import { ifThere, keepLines, wholeLines } from '../../shared/earlier-results.ts';
import { PathSet } from '../../shared/path-set.ts';
import type { MatchItem } from './match-table.ts';

/** Counts of matches, as a summary needs them. */
export type Tally = ReturnType<typeof newTally>;

/** Makes an empty tally. */
export const newTally = () => ({
  items: 0,
  failures: 0,
  evaluations: 0,
  plain: { text: 0, image: 0, group: 0 },
  lessUnconditional: { text: 0, image: 0, group: 0 },
});

/** One line of the output. */
export type MatchLine = { readonly item: string } & (
  | (PairErrors & Omit<MatchItem, 'item'>)
  | { readonly error: { readonly code: string; readonly message: string } }
);

/** Adds a line to a tally. */
export function count(tally: Tally, line: MatchLine): void {
  if ('error' in line) {
    tally.failures++;
    return;
  }
  tally.items++;
  tally.evaluations += line.evaluations;
  for (const name of ['text', 'image', 'group'] as const) {
    tally.plain[name] += Number(line[name]);
    tally.lessUnconditional[name] += Number(line.lessUnconditional[name]);
  }
}

const scores = (counts: Readonly<Record<keyof Matches, number>>, items: number) => ({
  text: scoreOf(counts.text, items),
  image: scoreOf(counts.image, items),
  group: scoreOf(counts.group, items),
});

/** Returns the summary of a run, which its last line holds. */
export const summaryOf = (
  { items, failures, plain, lessUnconditional, evaluations }: Tally,
  run: { readonly seed: number; readonly model?: string; readonly device?: string },
) => ({
  items,
  failures,
  ...scores(plain, items),
  lessUnconditional: scores(lessUnconditional, items),
  evaluations,
  ...run,
});

/** What an earlier run left: its items that have a result, and their tally. */
export interface EarlierItems {
  readonly done: PathSet;
  readonly tally: Tally;
}

type Line = MatchLine | { readonly summary: unknown };

const isResult = (line: Line | undefined): line is MatchLine & { readonly images: readonly string[] } =>
  line !== undefined && 'item' in line && !('error' in line);

/**
 * Reads the items that an output holds already; failed items do not count, and are tried again.
 *
 * @throws UsageError if the file holds something else, or cannot be read.
 */
export async function earlierItems(path: string): Promise<EarlierItems> {
  const done = new PathSet();
  const tally = newTally();
  let number = 0;
  let torn = 0;
  await ifThere(path, async () => {
    for await (const { text } of wholeLines(path, 'jsonl')) {
      number++;
      if (torn > 0) throw new UsageError(`${path}: line ${torn} is not a line of a match`);
      const line = parsed(text);
      if (line === undefined) torn = number;
      else if (isResult(line)) {
        done.add(line.item);
        count(tally, line);
      }
    }
    if (torn === 1) throw new UsageError(`${path}: holds no matches`);
  });
  return { done, tally };
}

/** Drops everything but the results of items from an output, so that it can be appended to. */
export const dropUnfinished = (path: string): Promise<void> =>
  ifThere(path, () => keepLines(path, 'jsonl', (text) => isResult(parsed(text))));

function parsed(text: string): Line | undefined {
  try {
    const value = JSON.parse(text);
    return typeof value?.item === 'string' || value?.summary ? value : undefined;
  } catch {
    return undefined;
  }
}
