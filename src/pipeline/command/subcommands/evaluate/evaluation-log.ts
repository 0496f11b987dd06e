// The log of an evaluation, by which a run that ended early is resumed. Its first line holds the settings, the version, the
// device and the date; each further line is the result of one image under one attack, appended as soon as it is known.

import { truncate } from 'node:fs/promises';
import { z } from 'zod';
import { UsageError } from '../../../../errors.ts';
import type { Result } from '../../../attacking/robustness.ts';
import { ifThere, wholeLines } from '../../shared/earlier-results.ts';
import type { Provenance } from '../../shared/provenance.ts';
import { fileWriter, type Writer } from '../../shared/writers.ts';

const resultLine = z.object({
  key: z.string(),
  attack: z.string(),
  label: z.number(),
  prediction: z.number(),
  margin: z.number(),
  right: z.boolean(),
  queries: z.number().optional(),
  saved: z.string().optional(),
});

/** The settings of an evaluation that its results depend on. */
export type Fingerprint = Readonly<Record<string, unknown>>;

/** The first line of a log. */
const headingLine = z.object({
  evaluation: z.record(z.string(), z.unknown()),
  made: z.object({
    version: z.string(),
    device: z.string().nullable(),
    date: z.string(),
    precision: z.literal('f16').optional(),
    overlays: z.record(z.string(), z.string()).optional(),
  }),
});

/** Returns the names of the settings in which two fingerprints differ. */
function differences(a: Fingerprint, b: Fingerprint): string[] {
  const plain = (value: unknown) => JSON.stringify(value);
  return Object.keys({ ...a, ...b }).filter((name) => plain(a[name]) !== plain(b[name]));
}

/** What an earlier run left. */
export interface EarlierEvaluation {
  readonly results: readonly Result[];
  /** How it was made; undefined if there is no log. */
  readonly made: Provenance | undefined;
  /** Bytes of the whole lines. */
  readonly bytes: number;
}

/** The log if nothing was evaluated before. */
export const NOTHING: EarlierEvaluation = { results: [], made: undefined, bytes: 0 };

/**
 * Reads the log of an earlier run, except a torn last line. A log that does not exist holds nothing.
 *
 * @throws UsageError if it holds something else, or was made with other settings.
 */
export async function readLog(path: string, of: Fingerprint): Promise<EarlierEvaluation> {
  const results: Result[] = [];
  let made: Provenance | undefined;
  let bytes = 0;
  await ifThere(path, async () => {
    for await (const { text, end } of wholeLines(path, 'jsonl')) {
      if (made === undefined) made = checkedHeading(path, text, of);
      else {
        const line = resultLine.safeParse(parsed(text));
        if (!line.success)
          throw new UsageError(`${path}: line ${results.length + 2} is not the result of an evaluation`);
        const { queries, saved, ...result } = line.data;
        results.push({
          ...result,
          ...(queries === undefined ? {} : { queries }),
          ...(saved === undefined ? {} : { saved }),
        });
      }
      bytes = end;
    }
  });
  return { results, made, bytes };
}

function checkedHeading(path: string, text: string, of: Fingerprint): Provenance {
  const heading = headingLine.safeParse(parsed(text));
  if (!heading.success)
    throw new UsageError(
      `${path}: expected the log of an evaluation, got something else; --overwrite begins anew`,
    );
  const { evaluation, made } = heading.data;
  const other = differences(evaluation, of);
  if (other.length > 0)
    throw new UsageError(
      `${path}: was made with other settings (${other.join(', ')}); --overwrite begins anew`,
    );
  return made;
}

/** Opens a log to append to, after the lines of an earlier run if there are any. @throws UsageError if that fails. */
export async function openLog(
  path: string,
  of: Fingerprint,
  made: Provenance,
  { bytes }: EarlierEvaluation,
): Promise<Writer> {
  if (bytes > 0) await truncate(path, bytes);
  const writer = await fileWriter(path, bytes > 0);
  if (bytes === 0) await writer.write(`${JSON.stringify({ evaluation: of, made })}\n`);
  return writer;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
