// What the dry runs of all commands but `classify` print: how much work there is, and how long it will take.

import { duration, short } from './progress.ts';
import type { RunOutcome } from './run-command.ts';
import { MEANING, type RunTime, rangeText, rowsText } from './timing.ts';
import { type Output, writeReport } from './writers.ts';

/** What a run would take. */
export interface Forecast {
  readonly model: string;
  /** Images, or what else the command counts. */
  readonly images: number;
  readonly noun?: string;
  /** The work of an image, for a person and for programs. */
  readonly work: { readonly text: string; readonly data: Readonly<Record<string, unknown>> };
  /** What was timed, for a person. */
  readonly timed: string;
  readonly time: RunTime;
}

/** Prints a forecast as text or as one line of JSON. Returns the outcome of a dry run, in which nothing can fail. */
export async function writeForecast(
  stdout: Output,
  forecast: Forecast,
  format: 'text' | 'json' | 'jsonl' = 'text',
): Promise<RunOutcome> {
  const { model, images, noun = 'images', work, timed, time } = forecast;
  const text = rowsText([
    ['model', model],
    ['work', work.text],
    [`per ${noun.replace(/s$/, '')}`, rangeText(time.image)],
    ['once', `${duration(time.once)} to start, open the model and compile (less if the shaders are cached)`],
    [`all ${short(images)} ${noun}`, `${rangeText(time.all)}, what is spent once included`],
    ['timed', timed],
    ['range', MEANING],
  ]);
  const line = { model, [noun]: images, ...work.data, seconds: time };
  await writeReport(stdout, format === 'text' ? 'text' : 'json', line, text);
  return { failures: 0 };
}
