// `bench compare OLD.json NEW.json`: what is significantly slower or faster in the new report?

import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import {
  type ComparedReport,
  type Comparison,
  compareReports,
  type Difference,
} from '../../../../bench/compare.ts';
import { type Column, millisecondsText, tableLine, tableTitles } from '../../../../bench/table.ts';
import { UsageError } from '../../../../errors.ts';
import { systemPath } from '../../../node/system-path.ts';
import type { OptionName, Values } from '../../options/table.ts';
import { jsonFile } from '../../shared/json-file.ts';
import { several } from '../../shared/progress.ts';
import { refusing } from '../../shared/refusing.ts';
import type { Surroundings } from '../../shared/subcommand.ts';
import { streamWriter } from '../../shared/writers.ts';

export const COMPARE = ['effect', 'failOn', 'json'] as const satisfies readonly OptionName[];

export interface CompareSettings extends Values<(typeof COMPARE)[number]> {
  readonly before: string;
  readonly after: string;
}

const schema = z.looseObject({
  bench: z.string(),
  device: z.string().default('an unknown device'),
  families: z.array(z.string()).default([]),
  results: z.array(
    z.looseObject({
      name: z.string(),
      family: z.string().optional(),
      samples: z.array(z.number()).optional(),
    }),
  ),
});

/** Reads a report that a benchmark wrote. @throws UsageError if the file is none. */
async function readReport(path: string): Promise<ComparedReport> {
  const text = await readFile(systemPath(path), 'utf8').catch(refusing(`${path}: cannot be read`));
  const report = schema.safeParse(parsed(path, text));
  if (!report.success || !report.data.results.some(({ samples }) => samples?.length))
    throw new UsageError(
      `${path}: expected a report of a benchmark with the repetitions of its results, got other JSON: measure with \`bench NAME --json FILE\``,
    );
  return report.data as ComparedReport;
}

function parsed(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new UsageError(`${path}: expected JSON, got text that is none`);
  }
}

const changeText = (change: number): string => `${change > 0 ? '+' : ''}${(100 * change).toFixed(1)}%`;

const listText = (what: string, names: readonly string[]): string =>
  names.length === 0
    ? ''
    : `only in the ${what} report: ${names.slice(0, 5).join('; ')}${names.length > 5 ? `; and ${names.length - 5} more` : ''}\n`;

/** Formats a comparison: a row for each significant difference, the largest first. */
export function comparisonText(
  { differences, onlyOld, onlyNew, conclusive }: Comparison,
  effect: number,
): string {
  const shown = differences
    .filter(({ verdict }) => verdict !== 'same')
    .sort((a, b) => Math.abs(Math.log1p(b.change)) - Math.abs(Math.log1p(a.change)));
  const title = ({ name, family }: Difference): string =>
    family === undefined ? name : `${name} (${family})`;
  const columns: readonly Column[] = [
    { title: 'case', width: Math.max(0, ...shown.map((one) => title(one).length)), align: 'left' },
    { title: 'old ms', width: 8 },
    { title: 'new ms', width: 8 },
    { title: 'change', width: 8 },
    { title: 'p', width: 8 },
    { title: '', width: 6, align: 'left' },
  ];
  const lines = shown.map((one) =>
    tableLine(columns, [
      title(one),
      millisecondsText(one.oldMs),
      millisecondsText(one.newMs),
      changeText(one.change),
      one.p.toPrecision(2),
      one.verdict,
    ]),
  );
  const number = (verdict: string) => differences.filter((one) => one.verdict === verdict).length;
  return [
    ...(lines.length > 0 ? [tableTitles(columns), ...lines, ''] : []),
    `${several(differences.length, 'result')} compared: ${number('slower')} slower, ${number('faster')} faster, ${number('same')} without a significant difference`,
    `significant: Mann-Whitney's test of the repetitions, at most 5 % false discoveries (Benjamini and Hochberg), and a change of the median of ${(100 * effect).toFixed(1)} % or more`,
    ...(conclusive
      ? []
      : [
          'the reports have too few repetitions for a difference in a single result to be significant: measure with more --repetitions',
        ]),
    listText('old', onlyOld) + listText('new', onlyNew),
  ].join('\n');
}

/** Compares two reports. Returns the exit status: 1 if `--fail-on` says so, else 0. */
export async function benchCompare(
  { before, after, effect, failOn, json }: CompareSettings,
  { stdout, reporter }: Surroundings,
): Promise<number> {
  const [old, now] = [await readReport(before), await readReport(after)];
  if (old.bench !== now.bench)
    throw new UsageError(
      `expected two reports of the same benchmark, got one of ${old.bench} and one of ${now.bench}`,
    );
  if (old.device !== now.device)
    reporter.log('warn', `the reports are of different devices: ${old.device}; ${now.device}`);
  const comparison = compareReports(old, now, effect);
  if (json !== undefined) jsonFile(json)(comparison);
  await streamWriter(stdout).write(comparisonText(comparison, effect));
  const has = (verdict: string) => comparison.differences.some((one) => one.verdict === verdict);
  const failed = has('slower') || (failOn === 'different' && has('faster'));
  return failOn !== undefined && failed ? 1 : 0;
}
