// What a program remembers from one run to the next, such as the fastest tiles of a device. `node/user-cache.ts` keeps it
// in the user's cache folder.

/** Keeps JSON values by scope and key. Whatever cannot be read or written is as if it were not there. */
export interface Cache {
  /** Returns all values of a scope by their keys. */
  read(scope: string): Promise<ReadonlyMap<string, unknown>>;
  /** Keeps a value in place of an earlier one. */
  write(scope: string, key: string, value: unknown): Promise<void>;
}
