// The log of an evaluation: what it was asked for in the first line, then an image and attack a line, appended as they
// come, so that a run that was ended can be taken up where it was.

import { truncate } from 'node:fs/promises';
import { z } from 'zod';
import type { Result } from '../attacking/robustness.ts';
import { UsageError } from '../errors.ts';
import { claimFile } from './output-file.ts';
import { ifThere, wholeLines } from './resume.ts';
import { fileWriter, type Writer } from './sinks.ts';

const resultLine = z.object({
  key: z.string(),
  attack: z.string(),
  label: z.number(),
  prediction: z.number(),
  margin: z.number(),
  right: z.boolean(),
  queries: z.number().optional(),
});

/** What an evaluation was asked for, as far as results depend on it. */
export type Fingerprint = Readonly<Record<string, unknown>>;

const heading = (of: Fingerprint) => JSON.stringify({ evaluation: of });

/** Which settings two headings differ in. */
function differences(one: string, other: string): string {
  const parse = (text: string): Fingerprint => {
    try {
      return (JSON.parse(text) as { readonly evaluation?: Fingerprint }).evaluation ?? {};
    } catch {
      return {};
    }
  };
  const [a, b] = [parse(one), parse(other)];
  const names = Object.keys({ ...a, ...b });
  return names.filter((name) => JSON.stringify(a[name]) !== JSON.stringify(b[name])).join(', ');
}

/** A log that is written, with the results it held. */
export interface EvaluationLog {
  readonly earlier: readonly Result[];
  readonly writer: Writer;
}

/**
 * Opens a log: a new one, or with `resume` the one that is there, whose torn last line is dropped. The log is locked
 * until its writer is closed.
 *
 * @throws UsageError if it holds something else, was made with other settings, or another program writes it.
 */
export async function openLog(path: string, of: Fingerprint, resume: boolean): Promise<EvaluationLog> {
  const claimed = await claimFile(path, { option: '--output', inputs: [] });
  try {
    const { earlier, bytes } = resume ? await readLog(claimed.path, of) : { earlier: [], bytes: 0 };
    const writer = await fileWriter(claimed.path, bytes > 0);
    if (bytes === 0) await writer.write(`${heading(of)}\n`);
    const close = async () => {
      await writer.close();
      await claimed.release();
    };
    return { earlier, writer: { closed: false, write: writer.write, close } };
  } catch (error) {
    await claimed.release();
    throw error;
  }
}

/** The results that a log holds, and the bytes of its whole lines; what is after those is cut off. */
async function readLog(
  path: string,
  of: Fingerprint,
): Promise<{ readonly earlier: readonly Result[]; readonly bytes: number }> {
  const earlier: Result[] = [];
  let bytes = 0;
  await ifThere(path, async () => {
    let number = 0;
    for await (const { text, end } of wholeLines(path, 'jsonl')) {
      number++;
      if (number === 1) {
        if (text !== heading(of))
          throw new UsageError(
            `${path}: was made with other settings (${differences(text, heading(of)) || 'it is no log of an evaluation'}); without --resume it begins anew`,
          );
      } else {
        const line = resultLine.safeParse(parsed(text));
        if (!line.success) throw new UsageError(`${path}: line ${number} is no result of an evaluation`);
        const { queries, ...result } = line.data;
        earlier.push(queries === undefined ? result : { ...result, queries });
      }
      bytes = end;
    }
    if (number > 0) await truncate(path, bytes);
  });
  return { earlier, bytes };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
