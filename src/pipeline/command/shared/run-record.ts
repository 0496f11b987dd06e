// The record of a run: its settings, next to its output as OUT.run.json, so that --resume never mixes different runs.
//
// The output is emptied first, then the record is written, then results. So whenever the program is killed, the results in
// the output belong to the record.

import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { UsageError } from '../../../errors.ts';
import { systemCode } from '../../images/failures.ts';
import { systemPath } from '../../node/system-path.ts';
import type { EarlierResults } from './earlier-results.ts';
import { refusing } from './refusing.ts';
import { writeWhole } from './whole-files.ts';

/** Everything that results depend on, as short texts that a person can compare, by their names. */
export type RunRecord = Readonly<Record<string, string | number | boolean>>;

const recordOf = (output: string) => `${output}.run.json`;

/** Characters that a list may have before it is shortened. */
const SHORT = 160;

/** Shortens a list: a long one becomes its length, its first items and a digest of all items. */
export function listed(items: readonly string[]): string {
  const text = items.join(', ');
  if (text.length <= SHORT) return text;
  const digest = createHash('sha256').update(JSON.stringify(items)).digest('hex').slice(0, 12);
  return `${items.length}: ${items.slice(0, 3).join(', ')}, ... (${digest})`;
}

/** Reads the record next to an output. Returns undefined if there is none, or if it is damaged. */
async function readRecord(output: string): Promise<RunRecord | undefined> {
  try {
    const { settings } = JSON.parse(await readFile(systemPath(recordOf(output)), 'utf8'));
    return typeof settings === 'object' && settings !== null ? settings : undefined;
  } catch (error) {
    const code = systemCode(error);
    if (code === undefined || code === 'ENOENT') return undefined;
    throw new UsageError(`${recordOf(output)}: cannot be read (${code})`);
  }
}

/** Writes the record of a run next to its output, whole or not at all. */
export async function writeRecord(output: string, settings: RunRecord): Promise<void> {
  const path = recordOf(output);
  const text = `${JSON.stringify({ settings }, null, 1)}\n`;
  await writeWhole(path, text).catch(refusing(`${path}: cannot be written`));
}

const WHAT_TO_DO = 'repeat the earlier settings, name another --output, or leave out --resume to begin anew';

/**
 * Reads the record next to an output and makes the check for `takeUp` that earlier results are of the same run.
 * Without a record, only the model, the seed and the precision in the lines can be compared, and `warn` is called. Settings in `except`,
 * which are not known yet, are not compared.
 */
export async function sameRun(
  output: string,
  settings: RunRecord,
  warn: (text: string) => void,
  except: readonly string[] = [],
): Promise<(found: EarlierResults) => void> {
  const earlier = await readRecord(output);
  return ({ results, models, seeds, precisions }) => {
    if (results === 0) return;
    const differences = earlier ? differencesOf(earlier, settings, except) : [];
    for (const [name, values] of [
      ['model', models],
      ['seed', seeds],
      ['precision', precisions],
    ] as const)
      for (const value of values)
        if (value !== shown(settings, name) && !differences.some((text) => text.startsWith(`${name} was`)))
          differences.push(`${name} was ${value}, now ${shown(settings, name)}`);
    if (differences.length > 0)
      throw new UsageError(
        `--resume: ${output} was made with other settings (${differences.join('; ')}); ${WHAT_TO_DO}`,
      );
    if (!earlier)
      warn(
        `${recordOf(output)} is missing: of the earlier settings only model, seed and precision could be compared`,
      );
  };
}

/** What is not recorded because it is the default, by name. */
const DEFAULTS: RunRecord = { precision: 'f32' };

/** Returns a setting of a record as text. */
const shown = (record: RunRecord, name: string): string =>
  String(record[name] ?? DEFAULTS[name] ?? 'not set');

function differencesOf(earlier: RunRecord, now: RunRecord, except: readonly string[]): string[] {
  const names = Object.keys({ ...earlier, ...now });
  return names
    .filter((name) => !except.includes(name))
    .filter((name) => earlier[name] !== now[name])
    .map((name) => `${name} was ${shown(earlier, name)}, now ${shown(now, name)}`);
}
