// The output of `match`, a line an item and a summary, and what can be taken up of it.

import { type Matches, scoreOf } from '../deciding/matching.ts';
import { UsageError } from '../errors.ts';
import type { PairErrors } from '../stream/match.ts';
import type { MatchItem } from './pairs.ts';
import { PathSet } from './pathset.ts';
import { ifThere, wholeLines } from './resume.ts';

/** Counts of matches, as a summary needs them. */
export interface Tally {
  items: number;
  failures: number;
  evaluations: number;
  readonly plain: Record<keyof Matches, number>;
  readonly lessUnconditional: Record<keyof Matches, number>;
}

/** Nothing counted yet. */
export const newTally = (): Tally => ({
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

/** The summary of a run: what the last line holds. */
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

/** What an earlier run left: its items, their tally, and the bytes of their lines. */
export interface EarlierItems {
  readonly done: PathSet;
  readonly tally: Tally;
  readonly bytes: number;
}

/**
 * Reads the items that an output holds already; a summary and a torn last line behind them do not count.
 *
 * @throws UsageError when the file holds something else, or cannot be read.
 */
export async function earlierItems(path: string): Promise<EarlierItems> {
  const done = new PathSet();
  const tally = newTally();
  let bytes = 0;
  let number = 0;
  let torn = 0;
  await ifThere(path, async () => {
    for await (const { text, end } of wholeLines(path, 'jsonl')) {
      number++;
      if (torn > 0) throw new UsageError(`${path}: line ${torn} is not of a match`);
      const line = parsed(text);
      if (line === undefined) torn = number;
      else if ('item' in line) {
        done.add(line.item);
        count(tally, line);
        bytes = end;
      }
    }
    if (torn === 1) throw new UsageError(`${path}: holds no matches`);
  });
  return { done, tally, bytes };
}

function parsed(text: string): MatchLine | { readonly summary: unknown } | undefined {
  try {
    const value = JSON.parse(text);
    return typeof value?.item === 'string' || value?.summary ? value : undefined;
  } catch {
    return undefined;
  }
}
