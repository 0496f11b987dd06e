// Where models are: folders by path, and those shipped with the package by name.

import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { UsageError } from '../errors.ts';

/** The model that is taken when none is named. */
export const DEFAULT_MODEL = 'fashion-mnist-multi-head';

/** The folder of the shipped models; the same from the sources and from what is compiled of them. */
export const SHIPPED = fileURLToPath(new URL('../../../weights/', import.meta.url));

const isFolder = (path: string) =>
  stat(path).then(
    (info) => info.isDirectory(),
    () => false,
  );

/**
 * The folder of a model given by path or by the name of a shipped one; a folder of that name comes first.
 *
 * @throws UsageError for a name that is neither.
 */
export async function modelFolder(name: string): Promise<string> {
  if (/[/\\]/.test(name) || (await isFolder(name))) return name;
  const shipped = join(SHIPPED, name);
  if (await isFolder(shipped)) return shipped;
  const entries = await readdir(SHIPPED, { withFileTypes: true }).catch(() => []);
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  throw new UsageError(
    `--model: there is no folder "${name}"; shipped models: ${names.join(', ') || 'none'}`,
  );
}
