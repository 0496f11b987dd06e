// Claims an output file before anything else is done: checks that it can be written, that no other program is writing it,
// and that nothing but earlier results is lost.

import { isUtf8 } from 'node:buffer';
import { constants } from 'node:fs';
import { access, open, readlink, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { UsageError } from '../../../errors.ts';
import { pathFromBytes } from '../../escaping.ts';
import { IMAGE_EXTENSIONS } from '../../images/extensions.ts';
import { systemCode } from '../../images/failures.ts';
import { systemPath } from '../../node/system-path.ts';
import { type Lock, lockFile } from './output-lock.ts';

/** An output file that was checked and is locked. */
export interface ClaimedFile {
  /** The path with its links resolved. */
  readonly path: string;
  /** False for devices and pipes, such as /dev/null, which have no contents of their own. */
  readonly isFile: boolean;
  release(): Promise<void>;
}

/** Returns the identity of a file, which is the same for all its paths: links, relative paths, other cases. */
export async function identityOf(path: string): Promise<string | undefined> {
  try {
    const { dev, ino } = await stat(systemPath(path), { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

/** Bytes at the beginning of a file that tell text from anything else. */
const HEAD = 4096;

/** Returns whether a file is not text, but an image, weights or an archive, for example. */
async function isBinary(path: string): Promise<boolean> {
  const file = await open(systemPath(path), 'r');
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD), 0, HEAD, 0);
    const head = buffer.subarray(0, bytesRead);
    // A character may be cut at the end of what was read.
    const whole = [0, 1, 2, 3].some((cut) => isUtf8(head.subarray(0, Math.max(0, bytesRead - cut))));
    return head.includes(0) || !whole;
  } finally {
    await file.close();
  }
}

/** Links that are followed one after the other, as many as Linux follows. */
const MOST_LINKS = 40;

/** Resolves the links in a path as far as it exists, and a link to a file that does not exist yet. */
export async function realPath(path: string, links = MOST_LINKS): Promise<string> {
  try {
    return pathFromBytes(await realpath(systemPath(path), 'buffer'));
  } catch {
    const folder = dirname(path);
    const target = await readlink(systemPath(path), 'buffer').then(pathFromBytes, () => undefined);
    if (target !== undefined && links > 0) return realPath(resolve(folder, target), links - 1);
    return folder === path ? path : join(await realPath(folder, links), basename(path));
  }
}

const extensionOf = (path: string) => /\.([^./\\]+)$/.exec(path)?.[1]?.toLowerCase() ?? '';

/** The meanings of the system's codes for an output. */
const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'its folder does not exist',
  ENOTDIR: 'its folder is a file',
  EACCES: 'permission denied',
  EROFS: 'the file system is read-only',
};

/** Returns an error that says why an output cannot be written, given the system's error. */
export const writeRefusal = (option: string, path: string, error: unknown): Error => {
  const code = systemCode(error);
  if (code === undefined) return error as Error;
  const reason = REASONS[code];
  return new UsageError(`${option}: ${path} cannot be written${reason ? `: ${reason}` : ''} (${code})`);
};

/** Refuses to replace a file that cannot hold the results of an earlier run. @throws UsageError */
async function checkContent(option: string, path: string, size: number, binary: boolean): Promise<void> {
  if (size === 0) return;
  const what = IMAGE_EXTENSIONS.includes(extensionOf(path))
    ? 'an image, by its name'
    : !binary && (await isBinary(path))
      ? 'not a text file, so it holds no earlier results'
      : undefined;
  if (what)
    throw new UsageError(`${option}: ${path} exists and is ${what}; name another file, or delete that one`);
}

/** How a file is claimed. */
export interface ClaimOptions {
  /** The option that names the file, for messages. */
  readonly option: '--output' | '--errors' | '--tensors';
  /** The inputs of the run: none of them may be the file. */
  readonly inputs: readonly string[];
  /** The file will hold binary data, so an earlier one may too. */
  readonly binary?: boolean;
}

/**
 * Claims an output file: checks that it can be written, is none of the inputs and holds nothing but earlier results,
 * and locks it. Nothing of it is changed. Devices and pipes are taken as they are.
 *
 * @throws UsageError, one sentence that names the option and the file.
 */
export async function claimFile(
  path: string,
  { option, inputs, binary = false }: ClaimOptions,
): Promise<ClaimedFile> {
  const info = await stat(systemPath(path)).catch((error: unknown) => {
    if (systemCode(error) !== 'ENOENT') throw writeRefusal(option, path, error);
  });
  if (info?.isDirectory()) throw new UsageError(`${option}: ${path} is a folder; expected a file`);
  if (info && !info.isFile()) return { path, isFile: false, release: async () => undefined };
  const input = info && (await inputThatIs(path, inputs));
  if (input !== undefined)
    throw new UsageError(`${option}: ${path} is also the input ${input}; expected another file`);
  let lock: Lock | undefined;
  try {
    const real = await realPath(path);
    if (info) await access(systemPath(real), constants.W_OK);
    lock = await lockFile(real).catch((error: unknown) => {
      // An existing file may be writable in a folder that is not; then there is nowhere to put a lock.
      if (info && ['EACCES', 'EPERM', 'EROFS'].includes(systemCode(error) ?? '')) return undefined;
      throw error;
    });
    if (info) await checkContent(option, path, info.size, binary);
    const held = lock;
    return { path: real, isFile: true, release: async () => held?.release() };
  } catch (error) {
    await lock?.release();
    throw writeRefusal(option, path, error);
  }
}

async function inputThatIs(path: string, inputs: readonly string[]): Promise<string | undefined> {
  const own = await identityOf(path);
  for (const input of inputs) if (input !== '-' && (await identityOf(input)) === own) return input;
  return undefined;
}
