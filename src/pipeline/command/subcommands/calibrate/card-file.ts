// Stores the temperature of `calibrate`. Shipped models are never changed, and a copy of a replaced card is kept.

import { constants, existsSync } from 'node:fs';
import { copyFile, cp, readdir, realpath, rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { UsageError } from '../../../../errors.ts';
import { storeTemperature } from '../../../../graph/node/store-temperature.ts';
import { systemCode } from '../../../images/failures.ts';
import { linesOf } from '../../../images/path-lines.ts';
import { SHIPPED } from '../../shared/model-folder.ts';
import { checkOutputFile, checkOutputFolder } from '../../shared/output-checks.ts';
import { isBeneath } from '../../shared/output-names.ts';
import type { Surroundings } from '../../shared/subcommand.ts';

/** Where a temperature goes: nowhere, to a card of its own, to a copy of the model's folder, or into the folder. */
export type Destination =
  | { readonly kind: 'nowhere' }
  | { readonly kind: 'card'; readonly file: string }
  | { readonly kind: 'copy'; readonly folder: string }
  | { readonly kind: 'in place'; readonly ask: boolean };

/** The options that say where the temperature is stored. */
export interface StoreOptions {
  readonly printOnly: boolean;
  /** A `.json` file, or a folder. */
  readonly cardOut: string | undefined;
  readonly inPlace: boolean;
}

const isShipped = async (path: string): Promise<boolean> => {
  const [real, shipped] = await Promise.all(
    [path, SHIPPED].map((one) => realpath(one).catch(() => resolve(one))),
  );
  return isBeneath(real!, shipped!);
};

/**
 * Decides where the temperature of a model in `folder` goes, before anything is computed. `canAsk` says whether there is
 * somebody at a terminal.
 *
 * @throws UsageError if it can go nowhere.
 */
export async function destinationOf(
  { printOnly, cardOut, inPlace }: StoreOptions,
  folder: string,
  canAsk: boolean,
): Promise<Destination> {
  if (printOnly) return { kind: 'nowhere' };
  if (cardOut !== undefined) {
    const card = /\.json$/i.test(cardOut);
    if (await isShipped(cardOut))
      throw new UsageError(`--out: ${cardOut} belongs to the shipped models, which stay as they are`);
    if (card) await checkOutputFile('--out', cardOut);
    else await checkOutputFolder('--out', cardOut);
    const taken = card ? existsSync(cardOut) : (await readdir(cardOut).catch(() => [])).length > 0;
    if (taken) throw new UsageError(`--out: ${cardOut} exists already; name another`);
    return card ? { kind: 'card', file: cardOut } : { kind: 'copy', folder: cardOut };
  }
  if (await isShipped(folder))
    throw new UsageError(
      'calibrate: a shipped model stays as it is; store the temperature in a copy with --out FOLDER, in a card with --out FILE.json, or only print it with --print-only',
    );
  if (!inPlace && !canAsk)
    throw new UsageError(
      `calibrate: expected --in-place to change ${join(folder, 'card.json')}, --out FILE.json or FOLDER to leave it, or --print-only to store nothing`,
    );
  await checkOutputFile('--in-place', join(folder, 'card.json'));
  return { kind: 'in place', ask: !inPlace };
}

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
      if (code !== 'EEXIST') throw new UsageError(`${copy}: cannot be written (${code ?? error})`);
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
    throw new UsageError(`--out: ${to} cannot be written (${systemCode(error) ?? error})`);
  }
}

/** Asks at the terminal; only y and yes mean yes. */
async function agreed(question: string, { stdin, reporter }: Surroundings): Promise<boolean> {
  reporter.log('warn', `${question} (y/N)`);
  for await (const answer of linesOf(stdin, '\n')) return /^y(es)?$/i.test(answer.trim());
  return false;
}

/** Stores the temperature of the model in `folder`; returns the card's path, or null if it was not stored. */
export async function storeIn(
  destination: Destination,
  folder: string,
  temperature: number,
  surroundings: Surroundings,
): Promise<string | null> {
  switch (destination.kind) {
    case 'nowhere':
      return null;
    case 'card':
      return storeTemperature(folder, temperature, destination.file);
    case 'copy':
      await copyFolder(folder, destination.folder);
      return storeTemperature(destination.folder, temperature);
    case 'in place': {
      const card = join(folder, 'card.json');
      const question = `store the temperature ${temperature.toPrecision(4)} in ${card}, with a copy of the card as it was?`;
      if (destination.ask && !(await agreed(question, surroundings))) return null;
      const copy = await keepCopy(card);
      if (copy) surroundings.reporter.log('info', `the card as it was is kept as ${copy}`);
      return storeTemperature(folder, temperature);
    }
    default:
      return destination satisfies never;
  }
}
