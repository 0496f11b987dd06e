// Cheap checks of files and folders that a command will need at its end, made before it opens a model.

import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { UsageError } from '../../../errors.ts';
import { systemCode } from '../../images/failures.ts';

const kindOf = (path: string) =>
  stat(path).then(
    (info) => (info.isDirectory() ? 'folder' : 'file'),
    (error: unknown) => {
      if (systemCode(error) === 'ENOENT') return undefined;
      throw error;
    },
  );

const refusal = (option: string, path: string, error: unknown) =>
  new UsageError(`${option}: ${path} cannot be written (${systemCode(error) ?? error})`);

/** @throws UsageError if a file could not be written, naming the option it was given by. */
export async function checkOutputFile(option: string, path: string): Promise<void> {
  try {
    const kind = await kindOf(path);
    if (kind === 'folder') throw new UsageError(`${option}: expected a file, got the folder ${path}`);
    if (kind === undefined && (await kindOf(dirname(path))) !== 'folder')
      throw new UsageError(`${option}: ${path} cannot be written, its folder does not exist; make it first`);
    await access(kind === undefined ? dirname(path) : path, constants.W_OK);
  } catch (error) {
    throw error instanceof UsageError ? error : refusal(option, path, error);
  }
}

/** @throws UsageError if a folder could not be made or written to, naming the option it was given by. */
export async function checkOutputFolder(option: string, path: string): Promise<void> {
  try {
    let there = resolve(path);
    let kind = await kindOf(there);
    while (kind === undefined && dirname(there) !== there) {
      there = dirname(there);
      kind = await kindOf(there);
    }
    if (kind !== 'folder') throw new UsageError(`${option}: expected a folder, ${there} is a file`);
    await access(there, constants.W_OK);
  } catch (error) {
    throw error instanceof UsageError ? error : refusal(option, path, error);
  }
}
