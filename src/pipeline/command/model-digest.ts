// A short digest of a model's files: another model of the same name, or the same one trained further, has another.

import { createHash } from 'node:crypto';
import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** Bytes that are read at each end of a file: weights of gigabytes are not read whole, but training changes them all. */
const END = 65_536;

/** A digest of the names, sizes and ends of a model's JSON and safetensors files; empty if there are none. */
export async function modelDigest(folder: string): Promise<string> {
  const names = await readdir(folder, { recursive: true }).catch(() => []);
  const files = names.filter((name) => /\.(json|safetensors)$/.test(name)).sort();
  if (files.length === 0) return '';
  const hash = createHash('sha256');
  for (const name of files) {
    const path = join(folder, name);
    const { size } = await stat(path);
    hash.update(JSON.stringify([name.replaceAll('\\', '/'), size]));
    const file = await open(path);
    try {
      for (const at of size > END ? [0, Math.max(END, size - END)] : [0]) {
        const { buffer, bytesRead } = await file.read(Buffer.alloc(END), 0, END, at);
        hash.update(buffer.subarray(0, bytesRead));
      }
    } finally {
      await file.close();
    }
  }
  return hash.digest('hex').slice(0, 16);
}
