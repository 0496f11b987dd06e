// Results as lines of data: JSON lines or CSV. Lines for people are in text-lines.ts.

import { escaped, safeJson, unescaped } from '../../escaping.ts';
import type { Classified, EvaluationRecord, ItemFailure } from '../../types.ts';
import { isFailure } from '../../types.ts';
import type { Format } from '../options/output-options.ts';

/** The formats that a program can read back, and so that a run can be resumed from. */
export type DataFormat = Exclude<Format, 'text'>;

/** What a line holds beyond the verdict. */
export interface LineOptions {
  readonly energy?: boolean;
  /** `seconds`, which differ from run to run. */
  readonly timings?: boolean;
  /** How the evaluations are stored. Lines of f32 do not say so; with f16, CSV has one column more. */
  readonly precision?: 'f32' | 'f16' | undefined;
}

/** Returns the format for the extension of an output: CSV for `.csv`, text for `.txt`, otherwise JSON lines. */
export function formatOfFile(path: string): Format {
  if (/\.csv$/i.test(path)) return 'csv';
  return /\.txt$/i.test(path) ? 'text' : 'jsonl';
}

/** Returns the columns of the CSV format. `top` holds JSON; the columns of the error are empty unless the item failed. */
const columnsOf = ({ energy, timings, precision }: LineOptions): readonly string[] => [
  'path',
  'label',
  'classidx',
  'probability',
  'margin',
  'decided',
  'evaluations',
  ...(timings ? ['seconds'] : []),
  'seed',
  'model',
  'device',
  'unfamiliar',
  'top',
  'error_code',
  'error_message',
  'purify',
  ...(energy ? ['energy', 'energyLevels'] : []),
  ...(precision === 'f16' ? ['precision'] : []),
];

/** Returns the line above the results of a format; '' if it has none. */
export const headerOf = (format: Format, options: LineOptions = {}): string =>
  format === 'csv' ? `${columnsOf(options).join(',')}\n` : '';

/** Matches what a spreadsheet takes for a formula, and what looks like such a text after its apostrophe. */
const FORMULA = /^'*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n]/;

/** Makes a cell of a text: escapes control characters, and puts an apostrophe before what a spreadsheet would run. */
const cellOf = (text: string) => `${FORMULA.test(text) ? "'" : ''}${escaped(text, '\t\r\n')}`;

/** Returns the text of a cell (the inverse of `cellOf`). */
export const textOfCell = (cell: string): string =>
  unescaped(cell.startsWith("'") && FORMULA.test(cell) ? cell.slice(1) : cell);

const quoted = (cell: string) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);

function csvLine(result: Classified | ItemFailure, options: LineOptions): string {
  const values: Readonly<Record<string, unknown>> = isFailure(result)
    ? { path: result.path, error_code: result.error.code, error_message: result.error.message }
    : { ...result, top: safeJson(result.top) };
  return columnsOf(options)
    .map((column) => {
      const value = values[column] ?? '';
      return quoted(typeof value === 'string' && column !== 'top' ? cellOf(value) : String(value));
    })
    .join(',');
}

function withoutSeconds(result: Classified | ItemFailure): object {
  if (isFailure(result)) return result;
  const { seconds: _, ...rest } = result;
  return rest;
}

/** Formats a result or a failed item as one line. */
export const lineOf = (
  result: Classified | ItemFailure,
  format: DataFormat,
  options: LineOptions = {},
): string =>
  `${format === 'csv' ? csvLine(result, options) : safeJson(options.timings ? result : withoutSeconds(result))}\n`;

/** Formats evaluations as JSON lines. */
export const evaluationLines = (records: readonly EvaluationRecord[]): string =>
  records.map((record) => `${safeJson(record)}\n`).join('');
