// Files that exist only in memory or as parts of other files, so that a checkpoint of another layout, or a model with
// something merged into it, is read as an ordinary model folder.

import { ModelError } from '../../errors.ts';
import { type Files, nameIn, type OpenFile } from './files.ts';

/** A file that replaces one of a model's files, or is added to them. */
export interface VirtualFile {
  /** What messages call it. */
  readonly description: string;
  /** Opens it. @throws ModelError if what it is made of cannot be read. */
  open(): Promise<OpenFile>;
}

/** Returns an open file of bytes in memory. */
export const openBytes = (bytes: Uint8Array): OpenFile => ({
  size: bytes.length,
  async read(offset, into) {
    const part = bytes.subarray(offset, offset + into.length);
    into.set(part);
    return part.length;
  },
  close: async () => {},
});

/** Returns a file with the JSON of a value. */
export const jsonFile = (description: string, value: unknown): VirtualFile => ({
  description,
  open: async () => openBytes(new TextEncoder().encode(JSON.stringify(value))),
});

/** Returns the files of a model that has none, to which virtual files are added. `path` is what messages call it. */
export const noFiles = (name: string, path: string): Files => ({
  name,
  describe: (file) => (file === '' ? path : `${path} (as ${file})`),
  list: async (folder) => (folder === '' ? [] : undefined),
  open: async (file) => {
    throw new ModelError(`${path}: has no ${file}`);
  },
});

/**
 * Returns the files of a model in which some are replaced or added. `virtual` has the names of these files, as in `Files`;
 * the folders that they lie in exist without being named.
 */
export function withVirtualFiles(files: Files, virtual: ReadonlyMap<string, VirtualFile>): Files {
  const added = (folder: string): string[] => {
    const start = nameIn(folder, '');
    const inside = [...virtual.keys()].filter((name) => name.startsWith(start));
    return inside.map((name) => name.slice(start.length).split('/')[0]!);
  };
  return {
    name: files.name,
    describe: (name) => virtual.get(name)?.description ?? files.describe(name),
    async list(folder) {
      const [own, others] = [added(folder), await files.list(folder)];
      return own.length === 0 ? others : [...new Set([...(others ?? []), ...own])];
    },
    open: (name) => virtual.get(name)?.open() ?? files.open(name),
  };
}
