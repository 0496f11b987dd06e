// Stores the temperature that `calibrate` fitted. Shipped models are never changed, and a replaced card is kept as a copy.

import { constants, existsSync } from 'node:fs';
import { copyFile, cp, readdir, realpath, rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { UsageError } from '../../../../errors.ts';
import { storeTemperature } from '../../../../graph/node/store-temperature.ts';
import { systemCode } from '../../../images/failures.ts';
import { linesOf } from '../../../images/path-lines.ts';
import type { Values } from '../../options/table.ts';
import { SHIPPED } from '../../shared/model-folder.ts';
import { checkOutputFile, checkOutputFolder } from '../../shared/output-checks.ts';
import { isBeneath } from '../../shared/output-names.ts';
import { refusing } from '../../shared/refusing.ts';
import type { Surroundings } from '../../shared/subcommand.ts';

/** Stores a temperature. Returns the path of the card that holds it, or null if it was not stored. */
export type StoreTemperature = (temperature: number) => Promise<string | null>;

const isShipped = async (path: string): Promise<boolean> => {
  const [real, shipped] = await Promise.all(
    [path, SHIPPED].map((one) => realpath(one).catch(() => resolve(one))),
  );
  return isBeneath(real!, shipped!);
};

/** Copies a card to a free name next to it. Returns that name, or undefined if there is no card. */
async function keepCopy(card: string): Promise<string | undefined> {
  for (let number = 1; ; number++) {
    const copy = `${card}.bak${number === 1 ? '' : `-${number}`}`;
    try {
      await copyFile(card, copy, constants.COPYFILE_EXCL);
      return copy;
    } catch (error) {
      const code = systemCode(error);
      if (code === 'ENOENT') return undefined;
      if (code !== 'EEXIST') refusing(`${copy}: cannot be written`)(error);
    }
  }
}

async function copyFolder(from: string, to: string): Promise<void> {
  const partial = `${resolve(to)}.${process.pid}.tmp`;
  try {
    await cp(from, partial, { recursive: true, dereference: true });
    await rename(partial, to);
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    refusing(`--out: ${to} cannot be written`)(error);
  }
}

/** Asks at the terminal; only y and yes mean yes. */
async function agreed(question: string, { stdin, reporter }: Surroundings): Promise<boolean> {
  reporter.log('warn', `${question} (y/N)`);
  for await (const answer of linesOf(stdin, '\n')) return /^y(es)?$/i.test(answer.trim());
  return false;
}

/**
 * Decides where the temperature of the model in `folder` goes, before anything is computed: nowhere, to a card of its own,
 * to a copy of the model's folder, or into the folder. Asks before the last if somebody is at a terminal (`canAsk`) and
 * --in-place was not given.
 *
 * @throws UsageError if it can go nowhere.
 */
export async function storeFor(
  { printOnly, cardOut, inPlace }: Values<'printOnly' | 'cardOut' | 'inPlace'>,
  folder: string,
  canAsk: boolean,
  surroundings: Surroundings,
): Promise<StoreTemperature> {
  if (printOnly) return async () => null;
  if (cardOut !== undefined) {
    const isCard = /\.json$/i.test(cardOut);
    if (await isShipped(cardOut))
      throw new UsageError(`--out: ${cardOut} belongs to the shipped models, which stay as they are`);
    if (isCard) await checkOutputFile('--out', cardOut);
    else await checkOutputFolder('--out', cardOut);
    const taken = isCard ? existsSync(cardOut) : (await readdir(cardOut).catch(() => [])).length > 0;
    if (taken) throw new UsageError(`--out: ${cardOut} exists already; name another`);
    if (isCard) return (temperature) => storeTemperature(folder, temperature, cardOut);
    return async (temperature) => {
      await copyFolder(folder, cardOut);
      return storeTemperature(cardOut, temperature);
    };
  }
  if (await isShipped(folder))
    throw new UsageError(
      'calibrate: a shipped model stays as it is; store the temperature in a copy with --out FOLDER, in a card with --out FILE.json, or only print it with --print-only',
    );
  const card = join(folder, 'card.json');
  if (!inPlace && !canAsk)
    throw new UsageError(
      `calibrate: expected --in-place to change ${card}, --out FILE.json or FOLDER to leave it, or --print-only to store nothing`,
    );
  await checkOutputFile('--in-place', card);
  return async (temperature) => {
    const question = `store the temperature ${temperature.toPrecision(4)} in ${card}, with a copy of the card as it was?`;
    if (!inPlace && !(await agreed(question, surroundings))) return null;
    const copy = await keepCopy(card);
    if (copy) surroundings.reporter.log('info', `the card as it was is kept as ${copy}`);
    return storeTemperature(folder, temperature);
  };
}
