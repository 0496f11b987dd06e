import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { passedOverFiles } from '../../src/pipeline/command/shared/passed-over.ts';
import { conversions } from '../../src/pipeline/images/conversions.ts';
import type { Pixels } from '../../src/pipeline/images/pixels.ts';
import { imageFrom } from '../../src/pipeline/node/image-from.ts';
import { encodePng } from '../../src/pipeline/node/png.ts';
import { cli, linesOf } from './captured-cli.ts';
import { temporaryFolder, write } from './image-files.ts';

const image = (width: number, height: number, channels: 1 | 3): Pixels => ({
  width,
  height,
  channels,
  data: new Uint8Array(width * height * channels),
});

/** Returns an uncompressed 16-bit grey TIFF file, which sharp cannot write. */
function tiff16(values: Uint16Array, width: number, height: number): Buffer {
  const SHORT = 3;
  const LONG = 4;
  const entries = [
    [256, SHORT, width],
    [257, SHORT, height],
    [258, SHORT, 16],
    [259, SHORT, 1],
    [262, SHORT, 1],
    [273, LONG, 8],
    [277, SHORT, 1],
    [278, SHORT, height],
    [279, LONG, values.length * 2],
  ] as const;
  const head = Buffer.from([0x49, 0x49, 42, 0, 0, 0, 0, 0]);
  head.writeUInt32LE(8 + values.length * 2, 4);
  const directory = Buffer.alloc(2 + 12 * entries.length + 4);
  directory.writeUInt16LE(entries.length, 0);
  for (const [k, [tag, type, value]] of entries.entries()) {
    directory.writeUInt16LE(tag, 2 + 12 * k);
    directory.writeUInt16LE(type, 4 + 12 * k);
    directory.writeUInt32LE(1, 6 + 12 * k);
    directory.writeUInt32LE(value, 10 + 12 * k);
  }
  return Buffer.concat([head, Buffer.from(values.buffer), directory]);
}

const messages = (shape: readonly [number, number, number], ...images: readonly Pixels[]) => {
  const all = conversions(shape);
  for (const one of images) all.add(one);
  return all.sentences();
};

describe('conversions', () => {
  test('of images that fit are not reported', () => {
    expect(messages([1, 28, 28], image(28, 28, 1))).toEqual([]);
    expect(messages([3, 32, 32], image(32, 32, 3))).toEqual([]);
  });

  test('of colour and size are reported', () => {
    expect(messages([1, 28, 28], image(40, 30, 3))).toEqual(['1 colour image of 40x30 became 28x28 grey']);
    expect(messages([1, 28, 28], image(28, 28, 3), image(28, 28, 3))).toEqual([
      '2 colour images of 28x28 became 28x28 grey',
    ]);
    expect(messages([3, 32, 32], image(50, 20, 1), image(64, 64, 3))).toEqual([
      '1 grey image of 50x20 became 32x32 colour',
      '1 colour image of 64x64 became 32x32',
    ]);
  });

  test('of similar sizes are summarised by a rounded size, of others by the extremes', () => {
    expect(messages([1, 28, 28], image(400, 300, 3), image(404, 296, 3))).toEqual([
      '2 colour images of about 400x300 became 28x28 grey',
    ]);
    expect(messages([1, 28, 28], image(40, 30, 3), image(30, 40, 3))).toEqual([
      '2 colour images of about 40x30 became 28x28 grey',
    ]);
    expect(messages([1, 28, 28], image(400, 300, 1), image(30, 40, 1), image(99, 99, 1))).toEqual([
      '3 grey images of 30x40 to 400x300 became 28x28',
    ]);
  });

  test('of 16-bit images from a 12-bit camera are reported', async () => {
    const values = Uint16Array.from({ length: 64 }, (_, i) => i * 11);
    const png = await sharp(values, { raw: { width: 8, height: 8, channels: 1 } })
      .toColourspace('grey16')
      .png()
      .toBuffer();
    const tiff = tiff16(values, 8, 8);
    const full = { data: values.map((v) => v * 90), width: 8, height: 8, channels: 1 };
    const all = conversions([1, 8, 8]);
    const decodedImages = await Promise.all([png, tiff, full].map((source) => imageFrom(source)));
    expect(decodedImages[0]!.data).toEqual(decodedImages[1]!.data);
    for (const decoded of decodedImages) {
      expect([decoded.bitDepth, decoded.channels]).toEqual([16, 1]);
      all.add(decoded);
    }
    expect(all.sentences()).toEqual([
      '2 16-bit images have values of at most 10 bits and look almost black, because 65535 is white and the high byte is kept; stretch the values to 0..65535 first',
    ]);
  });
});

test('skipped files are counted by extension, without other parts of their names', () => {
  const { add, sentence } = passedOverFiles();
  expect(sentence()).toBe('');
  for (const path of ['a.xmp', 'b.XMP', 'c.ico', 'README', 'x.\u001b[31mred', `y.${'z'.repeat(99)}`])
    add(path);
  expect(sentence()).toBe('passed over 6 files without the extension of an image: .xmp 2, .ico 1, others 3');
  for (let i = 0; i < 1000; i++) add(`a.e${i}`);
  expect(sentence()).toMatch(/^passed over 1,006 files .*: \.xmp 2(, \.\w+ 1){4}, others 1,000$/);
});

describe('the command', () => {
  test('reports skipped files and conversions on standard error', async () => {
    const folder = temporaryFolder();
    const data = Uint8Array.from({ length: 40 * 30 * 3 }, (_, i) => i % 256);
    const photo = encodePng({ width: 40, height: 30, channels: 3, data });
    write(folder, { 'a.png': photo, 'b.png': photo, 'x.xmp': 'P6', 'sub/y.xmp': 'P6', 'z.ico': '' });
    const { status, out, err } = await cli([folder]);
    expect(status).toBe(0);
    expect(linesOf(out)).toHaveLength(2);
    expect(err).toContain('passed over 3 files without the extension of an image: .xmp 2, .ico 1\n');
    expect(err).toContain('2 colour images of 40x30 became 2x2 grey\n');
    expect((await cli([folder, '--quiet'])).err).toBe('');
  });

  test('reads an archive, and resumes within it', async () => {
    const folder = temporaryFolder();
    const output = join(folder, 'results.jsonl');
    const header = Buffer.alloc(16);
    for (const [k, value] of [0x803, 6, 2, 2].entries()) header.writeUInt32BE(value, 4 * k);
    const records = Buffer.from(Array.from({ length: 24 }, (_, i) => i >> 2));
    write(folder, { 't-idx3-ubyte': Buffer.concat([header, records]) });
    const argv = [join(folder, 't-idx3-ubyte'), '--output', output, '--resume'];
    expect((await cli(argv)).status).toBe(0);
    const whole = readFileSync(output, 'utf8');
    expect(
      linesOf(whole)
        .map(({ path }) => path.split('#')[1])
        .sort(),
    ).toEqual(['0', '1', '2', '3', '4', '5']);
    write(folder, { 'results.jsonl': `${whole.split('\n').slice(0, 4).join('\n')}\n{"path": "to` });
    expect((await cli(argv)).err).toContain('2 images classified');
    const again = linesOf(readFileSync(output, 'utf8')).map(({ path }) => path);
    expect(new Set(again).size).toBe(6);
    expect(again).toHaveLength(6);
  });
});
