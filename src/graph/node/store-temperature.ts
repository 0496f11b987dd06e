// Storing a calibrated temperature in a model's card.

import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ModelError } from '../../errors.ts';
import { parseJson } from '../files/json.ts';
import { CARD, checkCard } from '../folders/card.ts';
import { reason } from './folder-files.ts';

/**
 * Stores a temperature in the `card.json` of a model folder, which is created if there is none. Everything else in it
 * stays as it is written. Given `to`, the new card is written to that file, and the folder's own card stays as it is. A
 * reader sees either the whole old card or the whole new one. Returns the path of the new card.
 * @throws ModelError if the folder's file is not a card, or the new one cannot be written.
 */
export async function storeTemperature(
  folder: string,
  temperature: number,
  to = join(folder, CARD),
): Promise<string> {
  const file = join(folder, CARD);
  const bytes = await readFile(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw new ModelError(`${file}: ${reason(error)}`);
  });
  if (bytes) checkCard(parseJson(bytes, file, true), file);
  const before = bytes?.toString('utf8') ?? '{}';
  const named = /("temperature"\s*:\s*)[-+.\deE]+/;
  const after = named.test(before)
    ? before.replace(named, (_, name: string) => name + temperature)
    : before.replace(/^(\s*)\{\s*(?=(\})?)/, (_, space: string, end?: string) =>
        end
          ? `${space}{\n  "temperature": ${temperature}\n`
          : `${space}{\n  "temperature": ${temperature},\n  `,
      );
  const partial = `${to}.${process.pid}.tmp`;
  try {
    await writeFile(partial, after.endsWith('\n') ? after : `${after}\n`);
    await rename(partial, to);
  } catch (error) {
    await rm(partial, { force: true });
    throw new ModelError(`${to}: cannot be written (${reason(error)})`);
  }
  return to;
}
