// The tables of the kernel benchmark: one family with its rates, or several families next to each other.

import type { Peak } from './peak.ts';
import type { BenchResult } from './report.ts';
import { type Column, millisecondsText, percentText, tableLine, tableTitles } from './table.ts';

/** The line of titles, and a function that returns the line of a case's results, one per family. */
export interface KernelTable {
  readonly titles: string;
  readonly line: (results: readonly BenchResult[]) => string;
}

const nameColumn = (names: readonly string[]): Column => ({
  title: 'case',
  width: Math.max(0, ...names.map(({ length }) => length)),
  align: 'left',
});

/** Marks a result that other work disturbed. */
const markOf = ({ disturbed }: BenchResult): string => (disturbed ? ' *' : '');

const rangeText = ([low, high]: readonly [number, number]): string =>
  `${millisecondsText(low)}-${millisecondsText(high)}`;

/** Returns the table of one family: milliseconds, their quartiles, and rates with their share of the peak. */
function ratesTable(names: readonly string[], peak: Peak, software: boolean): KernelTable {
  const columns: readonly Column[] = [
    nameColumn(names),
    { title: 'ms', width: 8 },
    { title: 'quartiles', width: 13 },
    { title: 'GFLOP/s', width: 8 },
    { title: 'of peak', width: 7 },
    ...(software ? [{ title: 'by processor', width: 12 }] : []),
    { title: 'GB/s', width: 6 },
    { title: 'of copy', width: 7 },
    { title: 'first ms', width: 8 },
    { title: '', width: 1, align: 'left' as const },
  ];
  const rate = (value: number | undefined): string => value?.toFixed(1) ?? '';
  return {
    titles: tableTitles(columns),
    line([result]) {
      const { name, ms, quartiles, gflops, processorGflops, gbytes, firstMs, error } = result!;
      if (ms === undefined) return `${name}: ${error}`;
      return tableLine(columns, [
        name,
        millisecondsText(ms),
        rangeText(quartiles!),
        rate(gflops),
        gflops === undefined ? '' : percentText(gflops / peak.gflops),
        ...(software ? [rate(processorGflops)] : []),
        rate(gbytes),
        percentText(gbytes! / peak.gbytes),
        firstMs!.toFixed(0),
        markOf(result!).trim(),
      ]);
    },
  };
}

/** Returns the table of several families: milliseconds of each, and how fast each is compared with the first one. */
function familiesTable(names: readonly string[], families: readonly string[]): KernelTable {
  const [first, ...others] = families;
  const columns: readonly Column[] = [
    nameColumn(names),
    ...families.map((family) => ({ title: `${family} ms`, width: 10 })),
    ...others.map((family) => ({ title: `${family} / ${first}`, width: 9 })),
    { title: '', width: 1, align: 'left' as const },
  ];
  return {
    titles: tableTitles(columns),
    line(results) {
      const [base] = results;
      const failed = results.filter(({ error }) => error !== undefined);
      const speed = ({ ms }: BenchResult): string =>
        ms === undefined || base!.ms === undefined ? '' : `${(base!.ms / ms).toFixed(2)}x`;
      const line = tableLine(columns, [
        base!.name,
        ...results.map(({ ms }) => (ms === undefined ? 'failed' : millisecondsText(ms))),
        ...results.slice(1).map(speed),
        results.map((result) => markOf(result).trim()).find(Boolean) ?? '',
      ]);
      return [line, ...failed.map(({ family, error }) => `  ${family}: ${error}`)].join('\n');
    },
  };
}

/** Returns the table for some cases and families. */
export const kernelTable = (
  names: readonly string[],
  families: readonly string[],
  { peak, software }: { readonly peak: Peak; readonly software: boolean },
): KernelTable => (families.length > 1 ? familiesTable(names, families) : ratesTable(names, peak, software));

/** Returns a warning if other work disturbed some results; undefined if it did not. */
export function disturbanceText(results: readonly BenchResult[]): string | undefined {
  const disturbed = results.filter(({ disturbed }) => disturbed);
  if (disturbed.length === 0) return undefined;
  const most = Math.max(...disturbed.map(({ otherCores = 0 }) => otherCores));
  return `* other processes used up to ${most.toFixed(1)} cores during ${disturbed.length} of ${results.length} measurements: their times are too long; repeat them on an idle machine`;
}
