// Makes a short digest of a model's files, which differs for another model of the same name and after further training.

import { createHash } from 'node:crypto';
import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** Bytes that are read at each end of a file. Gigabytes of weights are not read whole: training changes all of them. */
const END = 65_536;

/**
 * Returns a digest of the names, sizes and ends of a model folder's JSON files and weights, or of a model that is a
 * single file. It is empty if there are none.
 */
export async function modelDigest(model: string): Promise<string> {
  const names = await readdir(model, { recursive: true }).catch(() => undefined);
  const files = names?.filter((name) => /\.(json|safetensors|bin)$/.test(name)).sort() ?? [''];
  const hash = createHash('sha256');
  let any = false;
  for (const name of files) {
    const path = join(model, name);
    const info = await stat(path).catch(() => undefined); // a broken link is no part of the model
    if (!info?.isFile()) continue;
    any = true;
    hash.update(JSON.stringify([name.replaceAll('\\', '/'), info.size]));
    const file = await open(path);
    try {
      for (const at of info.size > END ? [0, Math.max(END, info.size - END)] : [0]) {
        const { buffer, bytesRead } = await file.read(Buffer.alloc(END), 0, END, at);
        hash.update(buffer.subarray(0, bytesRead));
      }
    } finally {
      await file.close();
    }
  }
  return any ? hash.digest('hex').slice(0, 16) : '';
}
