// The output of a command that --resume can go on with: standard output, or a file with a record of the run next to it.

import type { Format } from '../options/output-options.ts';
import { takeUp } from './earlier-results.ts';
import type { ClaimedFile } from './output-file.ts';
import type { PathSet } from './path-set.ts';
import type { LineOptions } from './result-lines.ts';
import { type RunRecord, sameRun, writeRecord } from './run-record.ts';
import type { Surroundings } from './subcommand.ts';
import { fileWriter, streamWriter, type Writer } from './writers.ts';

/** An output that is open. */
export interface OpenOutput {
  readonly writer: Writer;
  /** The images that an earlier run has finished, if this one resumes it. */
  readonly done: PathSet | undefined;
  /** Whether it holds nothing yet. */
  readonly isNew: boolean;
}

/**
 * Opens an output; without a file it is standard output. With `resume` a file keeps the results that it holds. `record`
 * is what the results depend on.
 *
 * @throws UsageError if the file holds results of other settings, or anything else.
 */
export async function openOutput(
  file: ClaimedFile | undefined,
  { format, resume, ...columns }: LineOptions & { readonly format: Format; readonly resume: boolean },
  record: RunRecord,
  { stdout, reporter }: Pick<Surroundings, 'stdout' | 'reporter'>,
): Promise<OpenOutput> {
  if (!file) return { writer: streamWriter(stdout), done: undefined, isNew: true };
  const { path, isFile } = file;
  if (!resume || format === 'text') {
    const writer = await fileWriter(path, false);
    if (isFile && format !== 'text') await writeRecord(path, record);
    return { writer, done: undefined, isNew: true };
  }
  const check = await sameRun(path, record, (text) => reporter.log('warn', text));
  const { done, bytes } = await takeUp(path, format, { ...columns, check });
  const writer = await fileWriter(path, true);
  if (isFile) await writeRecord(path, record);
  return { writer, done, isNew: bytes === 0 };
}
