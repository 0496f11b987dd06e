// Writes text to a file or to standard output. Writes happen one after the other, and a caller that awaits each write is
// slowed down to the pace of the reader.

import { open } from 'node:fs/promises';
import { UsageError } from '../../../errors.ts';
import { printable } from '../../escaping.ts';
import { systemCode } from '../../images/failures.ts';
import { systemPath } from '../../node/system-path.ts';
import { refusing } from './refusing.ts';

/** Writes text, in the order of the calls. */
export interface Writer {
  /** True after the reader has gone; writing then does nothing. */
  readonly closed: boolean;
  /** Resolves when the text is taken. Rejects with `UsageError` if it cannot be written (disk full). */
  write(text: string): Promise<void>;
  /** Waits for pending writes, then closes the file. */
  close(): Promise<void>;
}

/** The part of a stream that a writer needs. */
export type Output = Pick<NodeJS.WritableStream, 'write' | 'on' | 'removeListener'> & {
  readonly isTTY?: boolean;
  readonly columns?: number;
};

/**
 * Makes a writer to standard output, which stays open. A closed pipe is not an error. On a terminal, control characters
 * are escaped.
 */
export function streamWriter(stream: Output): Writer {
  let closed = false;
  let failure: Error | undefined;
  const onError = (error: Error) => {
    closed = true;
    if (!isClosedPipe(error))
      failure ??= new UsageError(`standard output cannot be written (${systemCode(error) ?? error.message})`);
  };
  stream.on('error', onError);
  return {
    get closed() {
      return closed;
    },
    async write(text) {
      if (!closed)
        await new Promise<void>((resolve) => {
          stream.write(stream.isTTY ? printable(text, '\n\t') : text, (error) => {
            if (error) onError(error);
            resolve();
          });
        });
      if (failure) throw failure;
    },
    async close() {
      // The listener stays: an error may still be on its way, and without one it would end the process.
    },
  };
}

/** Writes a report to standard output: as one line of JSON for programs, or as text for a person. */
export const writeReport = (
  stdout: Output,
  format: 'text' | 'json',
  report: unknown,
  text: string,
): Promise<void> => streamWriter(stdout).write(format === 'json' ? `${JSON.stringify(report)}\n` : text);

const isClosedPipe = (error: unknown) => ['EPIPE', 'ECONNRESET', 'EOF'].includes(systemCode(error) ?? '');

/**
 * Makes a writer to a file, which is emptied first unless `append` is true.
 *
 * @throws UsageError if it cannot be opened for writing.
 */
export async function fileWriter(path: string, append: boolean): Promise<Writer> {
  const refuse = refusing(`${path}: cannot be written`);
  const file = await open(systemPath(path), append ? 'a' : 'w').catch(refuse);
  let last: Promise<void> = Promise.resolve();
  return {
    closed: false,
    write(text) {
      last = last.then(() => file.appendFile(text)).catch(refuse);
      return last;
    },
    async close() {
      await last.catch(() => undefined);
      await file.close();
    },
  };
}
