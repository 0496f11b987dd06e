// Remembers values in the user's cache folder. Each value has a file of its own, which is written under a temporary name
// and then renamed: processes that run at the same time lose nothing, and no file is ever half written. A file that is
// broken, or that belongs to another scope, is ignored.

import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { z } from 'zod';
import type { Cache } from '../cache.ts';

const ENTRY = z.object({ scope: z.string(), key: z.string(), value: z.unknown() });

/** Returns the folder in which this program may keep what it can also compute again. */
export function cacheFolder(
  env: Readonly<Record<string, string | undefined>> = process.env,
  platform: NodeJS.Platform = process.platform,
): string {
  const { XDG_CACHE_HOME: given, LOCALAPPDATA: local } = env;
  const base =
    given && isAbsolute(given)
      ? given
      : platform === 'win32' && local
        ? local
        : join(homedir(), platform === 'darwin' ? 'Library/Caches' : '.cache');
  return join(base, 'diffclass-stream');
}

const hash = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 32);

async function readEntry(file: string, scope: string): Promise<readonly [string, unknown] | undefined> {
  try {
    const entry = ENTRY.parse(JSON.parse(await readFile(file, 'utf8')));
    return entry.scope === scope ? [entry.key, entry.value] : undefined;
  } catch {
    return undefined;
  }
}

/** Returns the cache in a folder, by default the user's. */
export function userCache(folder = cacheFolder()): Cache {
  const folderOf = (scope: string) => join(folder, hash(scope));
  return {
    async read(scope) {
      const names = await readdir(folderOf(scope)).catch(() => []);
      const files = names.filter((name) => name.endsWith('.json'));
      const entries = await Promise.all(files.map((name) => readEntry(join(folderOf(scope), name), scope)));
      return new Map(entries.filter((entry) => entry !== undefined));
    },
    async write(scope, key, value) {
      const file = join(folderOf(scope), `${hash(key)}.json`);
      const temporary = `${file}.${randomBytes(6).toString('hex')}.tmp`;
      try {
        await mkdir(folderOf(scope), { recursive: true });
        await writeFile(temporary, JSON.stringify({ scope, key, value }));
        await rename(temporary, file);
      } catch {
        // A cache that cannot be written is not an error: the next run computes the value again.
        await rm(temporary, { force: true }).catch(() => undefined);
      }
    },
  };
}
