// Results as lines of text: JSON lines or CSV.

import type { Classified, EvaluationRecord, ItemFailure } from '../types.ts';
import { isFailure } from '../types.ts';

/** Formats of results. */
export type Format = 'jsonl' | 'csv';

/** The columns of the CSV format; `top` is JSON, those of the error are empty unless the item failed. */
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
  'device',
  'top',
  'error_code',
  'error_message',
  'purify',
] as const;

/** The columns that energies add. */
const ENERGIES = ['energy', 'energyLevels'] as const;

const columnsOf = (energy: boolean): readonly string[] => (energy ? [...COLUMNS, ...ENERGIES] : COLUMNS);

/** The line above the results of a format, or nothing. */
export const headerOf = (format: Format, energy = false): string =>
  format === 'csv' ? `${columnsOf(energy).join(',')}\n` : '';

const quoted = (text: string) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

function csvLine(result: Classified | ItemFailure, energy: boolean): string {
  const fields = isFailure(result)
    ? { path: result.path, error_code: result.error.code, error_message: result.error.message }
    : { ...result, top: JSON.stringify(result.top) };
  const values: Readonly<Record<string, unknown>> = fields;
  return columnsOf(energy)
    .map((column) => quoted(String(values[column] ?? '')))
    .join(',');
}

/** A result, or a failed item, as one whole line. */
export const lineOf = (result: Classified | ItemFailure, format: Format, energy = false): string =>
  `${format === 'csv' ? csvLine(result, energy) : JSON.stringify(result)}\n`;

/** Evaluations as JSON lines. */
export const evaluationLines = (records: readonly EvaluationRecord[]): string =>
  records.map((record) => `${JSON.stringify(record)}\n`).join('');
