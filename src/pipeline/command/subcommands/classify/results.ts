// Where the results of `classify` go: claimed before the model is opened, opened after it, one line per result.

import { UsageError } from '../../../../errors.ts';
import type { Found } from '../../../node/sources.ts';
import { type Classified, type ItemFailure, isFailure } from '../../../types.ts';
import type { Format } from '../../options/output-options.ts';
import { formatOfFile, headerOf, lineOf } from '../../shared/format.ts';
import { type ClaimedFile, claimFile, identityOf, realPath } from '../../shared/output-file.ts';
import type { PathSet } from '../../shared/path-set.ts';
import type { Reporter } from '../../shared/progress.ts';
import { dropTornLine, takeUp } from '../../shared/resume.ts';
import { type RunRecord, sameRun, writeRecord } from '../../shared/run-record.ts';
import { fileWriter, type Output, streamWriter, type Writer } from '../../shared/sinks.ts';
import { cutEnd, cutStart } from './display-width.ts';
import type { Settings } from './settings.ts';
import { textLines } from './text-lines.ts';

/** The files of a run, claimed. */
export interface Claims {
  readonly output: ClaimedFile | undefined;
  readonly errors: ClaimedFile | undefined;
  release(): Promise<void>;
}

/** Claims the files that the settings name. @throws UsageError if one of them cannot be written. */
export async function claimOutputs({
  inputs,
  output,
  errors,
}: Pick<Settings, 'inputs' | 'output' | 'errors'>): Promise<Claims> {
  const results = output === '-' ? undefined : await claimFile(output, { option: '--output', inputs });
  try {
    if (results && errors !== undefined && (await realPath(errors)) === results.path)
      throw new UsageError('--errors and --output are the same file; expected two');
    const log = errors === undefined ? undefined : await claimFile(errors, { option: '--errors', inputs });
    return {
      output: results,
      errors: log,
      async release() {
        await results?.release();
        await log?.release();
      },
    };
  } catch (error) {
    await results?.release();
    throw error;
  }
}

/** The format of results: as asked for, else lines for people on a terminal, else by the name of the output. */
export function formatFor({ format, output }: Pick<Settings, 'format' | 'output'>, stdout: Output): Format {
  if (format) return format;
  if (output !== '-') return formatOfFile(output);
  return stdout.isTTY ? 'text' : 'jsonl';
}

/** Failed items that are told one by one on standard error; the output holds all of them. */
const TOLD = 10;

/** Columns of a failed item's path and reason on standard error. */
const LONGEST = 200;

/** Results on their way out. */
export interface Results {
  /** What an earlier run has done, if this one resumes it. */
  readonly done: PathSet | undefined;
  /** Where single evaluations go, if asked for. */
  readonly errors: Writer | undefined;
  /** True once the reader of the results has gone. */
  readonly closed: boolean;
  write(result: Classified | ItemFailure): Promise<void>;
  close(): Promise<void>;
}

/** What an output is opened with. */
export interface OpenOptions {
  readonly settings: Settings;
  readonly claims: Claims;
  readonly stdout: Output;
  readonly reporter: Reporter;
  /** Labels of the candidates. */
  readonly labels: readonly string[];
  /** What results depend on. */
  readonly record: RunRecord;
}

/** Opens the output, and takes up what it holds if the settings say so. @throws UsageError if it is of another run. */
export async function openResults(options: OpenOptions): Promise<Results> {
  const { settings, claims, stdout, reporter, labels } = options;
  const { energy, timings } = settings;
  const format = formatFor(settings, stdout);
  const onTerminal = claims.output === undefined && stdout.isTTY === true;
  const { writer, done, isNew } = await openWriter(options, format);
  if (claims.errors && settings.resume) await dropTornLine(claims.errors.path);
  const errors = claims.errors && (await fileWriter(claims.errors.path, settings.resume));
  if (isNew && headerOf(format, settings)) await writer.write(headerOf(format, settings));
  const textOf = textLines({
    labels,
    energy,
    timings,
    width: onTerminal ? (stdout.columns ?? 80) : undefined,
  });
  const line = (result: Classified | ItemFailure) =>
    format === 'text' ? textOf(result) : lineOf(result, format, { energy, timings });
  let failures = 0;
  return {
    done,
    errors,
    get closed() {
      return writer.closed;
    },
    async write(result) {
      if (onTerminal) reporter.clear();
      await writer.write(line(result));
      if (!isFailure(result) || onTerminal || writer.closed) return;
      failures++;
      const { path, error } = result;
      if (failures <= TOLD)
        reporter.log('warn', cutEnd(`${cutStart(path, LONGEST / 2)}: ${error.message}`, LONGEST));
      else if (failures === TOLD + 1) reporter.log('warn', 'more items failed; the output holds all of them');
    },
    async close() {
      await writer.close();
      await errors?.close();
    },
  };
}

async function openWriter(
  { settings, claims, stdout, reporter, record }: OpenOptions,
  format: Format,
): Promise<{ readonly writer: Writer; readonly done: PathSet | undefined; readonly isNew: boolean }> {
  if (!claims.output) return { writer: streamWriter(stdout), done: undefined, isNew: true };
  const { path, isFile } = claims.output;
  if (!settings.resume || format === 'text') {
    const writer = await fileWriter(path, false);
    if (isFile && format !== 'text') await writeRecord(path, record);
    return { writer, done: undefined, isNew: true };
  }
  const check = await sameRun(path, record, (text) => reporter.log('warn', text));
  const { done, bytes } = await takeUp(path, format, { ...settings, check });
  const writer = await fileWriter(path, true);
  if (isFile) await writeRecord(path, record);
  return { writer, done, isNew: bytes === 0 };
}

/** Passes what is found on, unless it is one of the files that are written. @throws UsageError if it is. */
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
