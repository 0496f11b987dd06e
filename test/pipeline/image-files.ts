// Writes folders of images for tests: valid images, and one of every kind of invalid file.

import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';
import { onTestFinished } from 'vitest';
import { encodePng } from '../../src/pipeline/node/png.ts';

/** Returns a 2x2 grey PNG of one shade. */
export const greyPng = (shade: number): Buffer =>
  encodePng({ width: 2, height: 2, channels: 1, data: new Uint8Array(4).fill(shade) });

/** Returns a PNG chunk with its checksum. */
export function chunk(type: string, data: Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const out = Buffer.alloc(body.length + 8);
  out.writeUInt32BE(data.length, 0);
  body.copy(out, 4);
  out.writeUInt32BE(crc32(body), body.length + 4);
  return out;
}

/** Returns a PNG file with a header, compressed data, and the end. */
export function rawPng(
  header: { width: number; height: number; depth?: number; colorType?: number; interlace?: number },
  data: Uint8Array,
): Buffer {
  const ihdr = Buffer.alloc(13);
  ihdr.writeUInt32BE(header.width, 0);
  ihdr.writeUInt32BE(header.height, 4);
  ihdr.set([header.depth ?? 8, header.colorType ?? 0, 0, 0, header.interlace ?? 0], 8);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([
    signature,
    chunk('IHDR', ihdr),
    chunk('IDAT', data),
    chunk('IEND', new Uint8Array()),
  ]);
}

/** Creates a temporary folder, which is removed at the end of the test. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'diffclass-test-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Writes files to a folder; a text that starts with `->` becomes a link. */
export function write(folder: string, files: Readonly<Record<string, Uint8Array | string>>): void {
  for (const [name, content] of Object.entries(files)) {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    if (typeof content === 'string' && content.startsWith('->')) symlinkSync(content.slice(2), path);
    else writeFileSync(path, content);
  }
}

/** Writes `count` valid images 0000.png, 0001.png, ... with ascending shades. */
export function goodImages(folder: string, count: number): string[] {
  return Array.from({ length: count }, (_, i) => {
    const name = `${String(i).padStart(4, '0')}.png`;
    write(folder, { [name]: greyPng(i % 256) });
    return join(folder, name);
  });
}
