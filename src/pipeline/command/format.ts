// Results as lines of text: JSON lines or CSV.

import type { Classified, EvaluationRecord, ItemFailure } from '../types.ts';
import { isFailure } from '../types.ts';

/** Formats of results. */
export type Format = 'jsonl' | 'csv';

/** The columns of the CSV format; `top` is JSON, the last two are empty unless the item failed. */
const COLUMNS = [
  'path',
  'label',
  'classidx',
  'probability',
  'margin',
  'decided',
  'evaluations',
  'seconds',
  'seed',
  'model',
  'top',
  'error_code',
  'error_message',
] as const;

/** The line above the results of a format, or nothing. */
export const headerOf = (format: Format): string => (format === 'csv' ? `${COLUMNS.join(',')}\n` : '');

const quoted = (text: string) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

function csvLine(result: Classified | ItemFailure): string {
  const fields = isFailure(result)
    ? { path: result.path, error_code: result.error.code, error_message: result.error.message }
    : { ...result, top: JSON.stringify(result.top) };
  const values: Readonly<Record<string, unknown>> = fields;
  return COLUMNS.map((column) => quoted(String(values[column] ?? ''))).join(',');
}

/** A result, or a failed item, as one whole line. */
export const lineOf = (result: Classified | ItemFailure, format: Format): string =>
  `${format === 'csv' ? csvLine(result) : JSON.stringify(result)}\n`;

/** Evaluations as JSON lines. */
export const evaluationLines = (records: readonly EvaluationRecord[]): string =>
  records.map((record) => `${JSON.stringify(record)}\n`).join('');
