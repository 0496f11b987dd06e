// How the files of a model are reached: by name, so that a folder on disk, a zip archive, a cache and fetched addresses
// can all hold a model.

import { ModelError } from '../../errors.ts';

/**
 * The files of a model. A name is a path relative to the model, with '/' between folders and file; the model's own
 * folder is ''.
 */
export interface Files {
  /** The model's name: that of its folder. */
  readonly name: string;
  /** Returns what messages call a file or folder: its path on disk, or its address. */
  describe(name: string): string;
  /**
   * Returns the names of the files and folders directly in a folder, or undefined if there is no such folder.
   * @throws ModelError naming the folder if it cannot be read.
   */
  list(folder: string): Promise<readonly string[] | undefined>;
  /** Opens a file. @throws ModelError naming the file if it does not exist or cannot be read. */
  open(name: string): Promise<OpenFile>;
}

/** An open file, whose owner closes it. Reads may overlap. */
export interface OpenFile {
  /** In bytes. */
  readonly size: number;
  /**
   * Fills `into` with the bytes from `offset` on. Returns how many bytes it read, which are fewer than `into` holds only
   * if the file ends before.
   * @throws ModelError naming the file if it cannot be read.
   */
  read(offset: number, into: Uint8Array): Promise<number>;
  close(): Promise<void>;
}

/** The largest file read as a whole, in bytes: the index of a sharded model has a few MB in practice. */
const MAX_WHOLE_BYTES = 100_000_000;

/** Returns the name of a file or folder directly in a folder. */
export const nameIn = (folder: string, name: string): string => (folder === '' ? name : `${folder}/${name}`);

/** Reads a whole file. @throws ModelError naming the file if it cannot be read or has more than 100 MB. */
export async function readWhole(files: Files, name: string): Promise<Uint8Array> {
  const file = await files.open(name);
  try {
    if (file.size > MAX_WHOLE_BYTES)
      throw new ModelError(
        `${files.describe(name)}: expected at most ${MAX_WHOLE_BYTES} bytes, got ${file.size}`,
      );
    const bytes = new Uint8Array(file.size);
    return bytes.subarray(0, await file.read(0, bytes));
  } finally {
    await file.close();
  }
}
