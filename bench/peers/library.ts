// Imports a library from the folder into which it was installed.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** Returns a module's exports; `T` describes the part that is used, because the libraries' types are not installed here. */
export async function importFrom<T>(folder: string, name: string): Promise<T> {
  // A bare name is looked up from the file that imports it.
  const file = join(folder, 'import.mjs');
  writeFileSync(file, 'export const load = (name) => import(name);\n');
  const { load } = (await import(pathToFileURL(file).href)) as { load: (name: string) => Promise<T> };
  return load(name);
}

/** Returns the version of an installed package. */
export const versionOf = (folder: string, name: string): string =>
  (
    JSON.parse(readFileSync(join(folder, 'node_modules', name, 'package.json'), 'utf8')) as {
      version: string;
    }
  ).version;
