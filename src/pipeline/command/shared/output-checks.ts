// Checks, before a command opens a model, the files and folders that it will write at its end.

import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { UsageError } from '../../../errors.ts';
import { systemCode } from '../../images/failures.ts';
import { writeRefusal } from './output-file.ts';

/** Returns what is at a path; undefined if nothing is. @throws the system's error if the path cannot be examined. */
const kindOf = (path: string) =>
  stat(path).then(
    (info) => (info.isDirectory() ? 'folder' : 'file'),
    (error: unknown) => {
      if (systemCode(error) === 'ENOENT') return undefined;
      throw error;
    },
  );

/** @throws UsageError naming the option if the file cannot be written. */
export async function checkOutputFile(option: string, path: string): Promise<void> {
  try {
    const kind = await kindOf(path);
    if (kind === 'folder') throw new UsageError(`${option}: ${path} is a folder; expected a file`);
    await access(kind === undefined ? dirname(path) : path, constants.W_OK);
  } catch (error) {
    throw writeRefusal(option, path, error);
  }
}

/** @throws UsageError naming the option if the folder cannot be made, or nothing can be written into it. */
export async function checkOutputFolder(option: string, path: string): Promise<void> {
  try {
    let existing = resolve(path);
    let kind = await kindOf(existing);
    while (kind === undefined && dirname(existing) !== existing) {
      existing = dirname(existing);
      kind = await kindOf(existing);
    }
    if (kind !== 'folder') throw new UsageError(`${option}: ${existing} is a file; expected a folder`);
    await access(existing, constants.W_OK);
  } catch (error) {
    throw writeRefusal(option, path, error);
  }
}
