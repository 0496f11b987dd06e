// Writes PNG files whole or not at all.

import { mkdir, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { UsageError } from '../../../errors.ts';
import { systemCode } from '../../images/failures.ts';
import type { Pixels } from '../../images/pixels.ts';
import { encodePng } from '../../node/png.ts';
import { systemPath } from '../../node/system-path.ts';

/** Writes an image, and creates its folder if necessary. @throws UsageError if it cannot be written. */
export async function writePng(file: string, image: Pixels): Promise<void> {
  try {
    await mkdir(systemPath(dirname(file)), { recursive: true });
    await writeFile(systemPath(`${file}.tmp`), encodePng(image));
    await rename(systemPath(`${file}.tmp`), systemPath(file));
  } catch (error) {
    throw new UsageError(`--out: ${file} cannot be written (${systemCode(error) ?? error})`);
  }
}
