// Writes files whole or not at all.

import { randomBytes } from 'node:crypto';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Pixels } from '../../images/pixels.ts';
import { encodePng } from '../../node/png.ts';
import { systemPath } from '../../node/system-path.ts';
import { refusing } from './refusing.ts';

/** Writes a file under a temporary name in the same folder, and then renames it. @throws the system's error. */
export async function writeWhole(path: string, content: string | Uint8Array): Promise<void> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  await writeFile(systemPath(temporary), content);
  await rename(systemPath(temporary), systemPath(path));
}

/** Writes an image, and creates its folder if necessary. @throws UsageError if it cannot be written. */
export async function writePng(file: string, image: Pixels): Promise<void> {
  const refuse = refusing(`--out: ${file} cannot be written`);
  await mkdir(systemPath(dirname(file)), { recursive: true }).catch(refuse);
  await writeWhole(file, encodePng(image)).catch(refuse);
}
