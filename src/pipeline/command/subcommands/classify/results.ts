// Writes the output of `classify`, one line per result. It is claimed before the model is opened, and opened after it.

import { UsageError } from '../../../../errors.ts';
import type { Model } from '../../../../graph/model.ts';
import type { Found } from '../../../node/sources.ts';
import { type Classified, type ItemFailure, isFailure } from '../../../types.ts';
import type { Format } from '../../options/output-options.ts';
import { dropTornLine } from '../../shared/earlier-results.ts';
import { type ClaimedFile, identityOf, realPath } from '../../shared/output-file.ts';
import { formatOfFile, headerOf, lineOf } from '../../shared/result-lines.ts';
import { openOutput } from '../../shared/resumable-output.ts';
import type { Run } from '../../shared/run-command.ts';
import type { RunRecord } from '../../shared/run-record.ts';
import type { Surroundings } from '../../shared/subcommand.ts';
import { fileWriter, type Output } from '../../shared/writers.ts';
import type { Settings } from './classify-settings.ts';
import { cutEnd, cutStart } from './display-width.ts';
import { textLines } from './text-lines.ts';

/** The files of a run, claimed. */
export interface Claims {
  readonly output: ClaimedFile | undefined;
  readonly errors: ClaimedFile | undefined;
}

/** Claims the files that the settings name. @throws UsageError if one of them cannot be written. */
export async function claimOutputs(
  { inputs, output: outputPath, errors: errorsPath }: Pick<Settings, 'inputs' | 'output' | 'errors'>,
  { claim }: Pick<Run, 'claim'>,
): Promise<Claims> {
  const output = await claim(outputPath, { option: '--output', inputs });
  if (output && errorsPath !== undefined && (await realPath(errorsPath)) === output.path)
    throw new UsageError('--errors and --output name the same file; expected two files');
  const errors =
    errorsPath === undefined ? undefined : await claim(errorsPath, { option: '--errors', inputs });
  return { output, errors };
}

/** Returns the format of results: --format, or else text on a terminal, or else the one of the output's extension. */
export function formatFor({ format, output }: Pick<Settings, 'format' | 'output'>, stdout: Output): Format {
  if (format) return format;
  if (output !== '-') return formatOfFile(output);
  return stdout.isTTY ? 'text' : 'jsonl';
}

/** Failed items that are reported one by one on standard error if the output is a file, which holds all of them. */
const REPORTED = 10;

/** Columns of a failed item's path and reason on standard error. */
const LONGEST = 200;

/** The output of results, open. */
export type Results = Awaited<ReturnType<typeof openResults>>;

/** Opens the output; with --resume it keeps its results. @throws UsageError if they are of another run. */
export async function openResults(
  settings: Settings,
  claims: Claims,
  { candidates, precision }: Pick<Model, 'candidates' | 'precision'>,
  record: RunRecord,
  surroundings: Pick<Surroundings, 'stdout' | 'reporter'>,
) {
  const { stdout, reporter } = surroundings;
  const { energy, timings, resume } = settings;
  const format = formatFor(settings, stdout);
  const onTerminal = claims.output === undefined && stdout.isTTY === true;
  const columns = { energy, timings, precision };
  const written = { format, resume, ...columns };
  const { writer, done, isNew } = await openOutput(claims.output, written, record, surroundings);
  if (claims.errors && resume) await dropTornLine(claims.errors.path);
  const errors = claims.errors && (await fileWriter(claims.errors.path, resume));
  if (isNew && headerOf(format, columns)) await writer.write(headerOf(format, columns));
  const labels = candidates.map(({ label }) => label);
  const width = onTerminal ? (stdout.columns ?? 80) : undefined;
  const textOf = textLines({ labels, energy, timings, width });
  const line = (result: Classified | ItemFailure) =>
    format === 'text' ? textOf(result) : lineOf(result, format, columns);
  let failures = 0;
  return {
    /** What an earlier run has done, if this one resumes it. */
    done,
    /** The writer of single evaluations (--errors). */
    errors,
    /** True once the reader of the results has gone. */
    get closed(): boolean {
      return writer.closed;
    },
    async write(result: Classified | ItemFailure) {
      if (onTerminal) reporter.clear();
      await writer.write(line(result));
      if (!isFailure(result) || onTerminal || writer.closed) return;
      failures++;
      const { path, error } = result;
      if (failures <= REPORTED)
        reporter.log('warn', cutEnd(`${cutStart(path, LONGEST / 2)}: ${error.message}`, LONGEST));
      else if (failures === REPORTED + 1)
        reporter.log('warn', 'more items failed; the output holds all of them');
    },
    async close() {
      await writer.close();
      await errors?.close();
    },
  };
}

/** Passes on what is found. @throws UsageError if it is one of the files that are written. */
export async function* apartFrom(found: AsyncIterable<Found>, claims: Claims): AsyncGenerator<Found> {
  const outputs = new Map<string, string>();
  for (const [option, claimed] of [
    ['--output', claims.output],
    ['--errors', claims.errors],
  ] as const) {
    const identity = claimed && (await identityOf(claimed.path));
    if (identity !== undefined) outputs.set(identity, option);
  }
  for await (const item of found) {
    const option =
      typeof item === 'string' && outputs.size > 0 ? outputs.get((await identityOf(item)) ?? '') : undefined;
    if (option) throw new UsageError(`${option}: the file is also the input ${item}; expected another file`);
    yield item;
  }
}
