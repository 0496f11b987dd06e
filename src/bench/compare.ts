// Compares two reports of the same benchmark: which results differ by more than chance.
//
// Test: Mann-Whitney's U on the repetitions of a result in both reports, two-sided, with the exact distribution (ties count
// half; with more than `EXACT` repetitions on a side, the normal approximation). Benjamini and Hochberg's procedure keeps
// the share of false discoveries among all compared results at 5 %. A difference must also change the median by at least
// `effect`, because repetitions of one run share what differs between two runs of the same program, such as clock rates.

import { median } from '../numbers.ts';
import type { BenchReport, BenchResult } from './report.ts';

/** The share of false discoveries that is accepted. */
export const FALSE_DISCOVERIES = 0.05;

/** The most repetitions on a side for which the exact distribution is computed. */
const EXACT = 30;

/** What a comparison needs of a report. */
export type ComparedReport = Pick<BenchReport, 'bench' | 'device' | 'families' | 'results'>;

/** The result of a comparison for one pair of results. */
export interface Difference {
  readonly name: string;
  readonly family: string | undefined;
  /** Medians in milliseconds. */
  readonly oldMs: number;
  readonly newMs: number;
  /** `newMs / oldMs - 1`; positive if the new one is slower. */
  readonly change: number;
  /** The two-sided p-value of Mann-Whitney's test. */
  readonly p: number;
  /** Whether the difference is significant and at least as large as the smallest effect. */
  readonly verdict: 'slower' | 'faster' | 'same';
}

export interface Comparison {
  readonly differences: readonly Difference[];
  /** Names of results that only one report has, or that failed in one. */
  readonly onlyOld: readonly string[];
  readonly onlyNew: readonly string[];
  /**
   * Whether there are enough repetitions for a difference in a single result to be significant. If not, everything is
   * `same`.
   */
  readonly conclusive: boolean;
}

/** Returns the number of ways to get each value of U for samples of n and m without ties: a table up to n·m. */
function waysOfU(n: number, m: number): Float64Array {
  // ways[j][u]: arrangements of i values of one sample and j of the other; extended by one value of the first at a time.
  let ways = Array.from({ length: m + 1 }, () => {
    const row = new Float64Array(n * m + 1);
    row[0] = 1;
    return row;
  });
  for (let i = 1; i <= n; i++) {
    const next = [ways[0]!];
    for (let j = 1; j <= m; j++) {
      const row = new Float64Array(n * m + 1);
      // The largest of all values is from the first sample and exceeds j of the second, or is from the second.
      for (let u = 0; u <= n * m; u++) row[u] = (u >= j ? ways[j]![u - j]! : 0) + next[j - 1]![u]!;
      next.push(row);
    }
    ways = next;
  }
  return ways[m]!;
}

/** Returns the upper tail of the standard normal distribution at z >= 0 (Abramowitz and Stegun 26.2.17). */
function normalTail(z: number): number {
  const t = 1 / (1 + 0.2316419 * z);
  const series =
    t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  return (Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI)) * series;
}

/** Returns the two-sided p-value of Mann-Whitney's test that two samples have the same distribution. */
export function mannWhitney(a: readonly number[], b: readonly number[]): number {
  const [n, m] = [a.length, b.length];
  let u = 0;
  for (const x of a) for (const y of b) u += x > y ? 1 : x === y ? 0.5 : 0;
  const extreme = Math.max(u, n * m - u);
  if (n <= EXACT && m <= EXACT) {
    const ways = waysOfU(n, m);
    let tail = 0;
    let all = 0;
    ways.forEach((count, value) => {
      all += count;
      // With ties U may end in one half; rounding it down makes the test conservative.
      if (value >= Math.floor(extreme)) tail += count;
    });
    return Math.min(1, (2 * tail) / all);
  }
  const deviation = Math.sqrt((n * m * (n + m + 1)) / 12);
  return Math.min(1, 2 * normalTail(Math.max(0, extreme - (n * m) / 2 - 0.5) / deviation));
}

/** Returns the largest p-value that is a discovery by Benjamini and Hochberg's procedure; 0 if none is. */
export function discoveryLimit(pValues: readonly number[], rate = FALSE_DISCOVERIES): number {
  const sorted = [...pValues].sort((a, b) => a - b);
  let limit = 0;
  sorted.forEach((p, i) => {
    if (p <= (rate * (i + 1)) / sorted.length) limit = p;
  });
  return limit;
}

const keyOf = ({ name, family = '' }: BenchResult): string => `${family} ${name}`;

const timed = ({ results }: ComparedReport): Map<string, BenchResult> =>
  new Map(results.filter(({ samples }) => samples?.length).map((result) => [keyOf(result), result]));

/**
 * Compares two reports. `effect` is the smallest change of a median that counts, as a share of the old one.
 */
export function compareReports(before: ComparedReport, after: ComparedReport, effect: number): Comparison {
  // Families are part of a result's key only if a report compares several: one family against another is a fair question.
  const single = before.families.length === 1 && after.families.length === 1;
  const strip = (report: ComparedReport): ComparedReport =>
    single ? { ...report, results: report.results.map(({ family: _, ...result }) => result) } : report;
  const [olds, news] = [timed(strip(before)), timed(strip(after))];
  const pairs = [...olds].flatMap(([key, old]) => {
    const now = news.get(key);
    if (!now) return [];
    const [oldMs, newMs] = [median(old.samples!), median(now.samples!)];
    const p = mannWhitney(old.samples!, now.samples!);
    return [{ name: old.name, family: old.family, oldMs, newMs, change: newMs / oldMs - 1, p }];
  });
  const limit = discoveryLimit(pairs.map(({ p }) => p));
  const differences = pairs.map((pair): Difference => {
    const significant = pair.p <= limit && Math.abs(pair.change) >= effect;
    return { ...pair, verdict: !significant ? 'same' : pair.change > 0 ? 'slower' : 'faster' };
  });
  const smallest = Math.max(
    0,
    ...[...olds].flatMap(([key, old]) => {
      const now = news.get(key);
      return now ? [leastP(old.samples!.length, now.samples!.length)] : [];
    }),
  );
  const missing = (from: Map<string, BenchResult>, other: Map<string, BenchResult>) =>
    [...from].filter(([key]) => !other.has(key)).map(([key]) => key.trim());
  return {
    differences,
    onlyOld: missing(olds, news),
    onlyNew: missing(news, olds),
    conclusive: smallest <= FALSE_DISCOVERIES / Math.max(1, pairs.length),
  };
}

/** Returns the smallest p-value that samples of n and m can have. */
function leastP(n: number, m: number): number {
  let ways = 1;
  for (let i = 1; i <= n; i++) ways *= (m + i) / i;
  return Math.min(1, 2 / ways);
}
