// A folder on disk as the files of a model.

import { open, readdir } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import { ModelError } from '../../errors.ts';
import type { Files, OpenFile } from '../files/files.ts';
import { snapshotName } from './hub-cache.ts';

/** Bytes that are asked of the system in one read; some systems refuse 2 GiB and more. */
const MAX_READ = 1 << 30;

/** Returns the code of an error of the system, such as ENOENT. */
const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;

/** Returns in a few words why the file system refused. */
export function reason(error: unknown): string {
  const code = codeOf(error);
  if (code === 'ENOENT') return 'no such file';
  if (code === 'EISDIR') return 'is a folder, not a file';
  if (code === 'ENOTDIR') return 'is inside something that is not a folder';
  if (code === 'EACCES' || code === 'EPERM') return 'may not be read';
  return `cannot be read (${code ?? error})`;
}

/**
 * Returns the files of a folder on disk. Names may also lead out of the folder, as those of an optimal denoiser's images
 * do: '../images.safetensors' or an absolute path.
 */
export function folderFiles(folder: string): Files {
  const pathOf = (name: string): string =>
    name === '' ? folder : isAbsolute(name) ? name : join(folder, name);
  return {
    name: snapshotName(folder) ?? basename(resolve(folder)),
    describe: pathOf,
    async list(name) {
      const path = pathOf(name);
      try {
        return await readdir(path);
      } catch (error) {
        if (codeOf(error) === 'ENOENT') return undefined;
        throw new ModelError(`${path}: ${codeOf(error) === 'ENOTDIR' ? 'is not a folder' : reason(error)}`);
      }
    },
    open: (name) => openPath(pathOf(name)),
  };
}

/** Returns a file on disk as its folder's files and its name there. */
export const fileAt = (path: string): [files: Files, name: string] => [
  folderFiles(dirname(path)),
  basename(path),
];

async function openPath(path: string): Promise<OpenFile> {
  const failed = (error: unknown): never => {
    throw new ModelError(`${path}: ${reason(error)}`);
  };
  const handle = await open(path, 'r').catch(failed);
  const stat = await handle.stat();
  if (!stat.isFile()) {
    await handle.close();
    throw new ModelError(`${path}: is ${stat.isDirectory() ? 'a folder, not a file' : 'not a regular file'}`);
  }
  return {
    size: stat.size,
    async read(offset, into) {
      let done = 0;
      while (done < into.length) {
        const length = Math.min(into.length - done, MAX_READ);
        const { bytesRead } = await handle.read(into, done, length, offset + done).catch(failed);
        if (bytesRead === 0) break;
        done += bytesRead;
      }
      return done;
    },
    close: () => handle.close(),
  };
}
