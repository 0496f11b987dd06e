import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import { PNG } from 'pngjs';
import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { FAILURE_CODES, failureOf } from '../../src/pipeline/images/failures.ts';
import { decodeFile, decodeImage } from '../../src/pipeline/node/decode.ts';
import { encodePng } from '../../src/pipeline/node/png.ts';
import { chunk, greyPng, rawPng, temporaryFolder, write } from './image-files.ts';

/** Returns rows of samples, each with the filter byte 0 before it. */
const rows = (...lines: readonly (readonly number[])[]) =>
  deflateSync(Uint8Array.from(lines.flatMap((line) => [0, ...line])));

const pixelsOf = async (bytes: Buffer) => {
  const { channels, data } = await decodeImage(bytes);
  return [channels, ...data];
};

/** Returns a valid 2x2 image with a chunk inserted after the header. */
const withChunk = (image: Buffer, type: string, data: Uint8Array) =>
  Buffer.concat([image.subarray(0, 33), chunk(type, data), image.subarray(33)]);

describe('PNG', () => {
  test.each([
    ['1 bit', { width: 3, height: 1, depth: 1 }, [0b10100000], [1, 255, 0, 255]],
    ['2 bits', { width: 4, height: 1, depth: 2 }, [0b00011011], [1, 0, 85, 170, 255]],
    ['4 bits', { width: 2, height: 1, depth: 4 }, [0x1f], [1, 17, 255]],
    ['8 bits', { width: 2, height: 1, depth: 8 }, [3, 254], [1, 3, 254]],
    [
      '16 bits keep the high byte',
      { width: 2, height: 1, depth: 16 },
      [0x12, 0xff, 0xff, 0],
      [1, 0x12, 0xff],
    ],
    ['grey and alpha', { width: 1, height: 1, colorType: 4 }, [9, 0], [1, 9]],
    ['RGB', { width: 1, height: 1, colorType: 2 }, [1, 2, 3], [3, 1, 2, 3]],
    [
      'RGB, 16 bits',
      { width: 1, height: 1, colorType: 2, depth: 16 },
      [1, 200, 2, 200, 3, 200],
      [3, 1, 2, 3],
    ],
    [
      'RGBA loses its alpha, not its colour',
      { width: 1, height: 1, colorType: 6 },
      [1, 2, 3, 0],
      [3, 1, 2, 3],
    ],
    ['interlaced', { width: 1, height: 1, colorType: 2, interlace: 1 }, [4, 5, 6], [3, 4, 5, 6]],
  ] as const)('%s', async (_, header, line, expected) => {
    expect(await pixelsOf(rawPng(header, rows(line)))).toEqual(expected);
  });

  test('looks up a palette, including transparent entries', async () => {
    const image = rawPng({ width: 2, height: 1, colorType: 3 }, rows([1, 0]));
    const table = withChunk(
      withChunk(image, 'tRNS', Uint8Array.of(0, 0)),
      'PLTE',
      Uint8Array.of(9, 8, 7, 1, 2, 3),
    );
    expect(await pixelsOf(table)).toEqual([3, 1, 2, 3, 9, 8, 7]);
  });

  test('keeps a transparent colour', async () => {
    const image = rawPng({ width: 2, height: 1 }, rows([255, 3]));
    expect(await pixelsOf(withChunk(image, 'tRNS', Uint8Array.of(0, 255)))).toEqual([1, 255, 3]);
  });

  test.each([0, 1, 2, 3, 4] as const)('decodes rows with filter %i', async (filterType) => {
    const image = new PNG({ width: 23, height: 11 });
    image.data = Buffer.from(Uint8Array.from({ length: 23 * 11 * 4 }, (_, i) => (i * i * 31 + i) % 256));
    const { data } = await decodeImage(PNG.sync.write(image, { filterType, colorType: 6 }));
    expect([...data]).toEqual([...image.data].filter((_, i) => i % 4 !== 3));
  });

  test('decodes what it encodes', async () => {
    const data = Uint8Array.from({ length: 5 * 3 * 3 }, (_, i) => (i * 41) % 256);
    const image = { width: 5, height: 3, channels: 3 as const, data };
    expect(await decodeImage(encodePng(image))).toEqual(image);
  });
});

describe('faults have stable codes', () => {
  const good = greyPng(1);
  const wide = rawPng({ width: 30_000, height: 30_000 }, rows([0]));
  const bomb = deflateSync(new Uint8Array(5_000_000));
  const flipped = Buffer.from(good);
  flipped[good.length - 14]! ^= 0xff; // in the checksum of IDAT
  const corrupt = rawPng({ width: 2, height: 2 }, Uint8Array.of(1, 2, 3, 4));

  test.each([
    ['0 bytes', Buffer.alloc(0), 'empty'],
    ['text', Buffer.from('hello, I am text\n'), 'not-an-image'],
    ['an SVG document', Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>'), 'not-an-image'],
    ['a BMP header only', Buffer.from('BM\x36\0\0\0\0\0\0\0'), 'truncated'],
    ['a HEIC file', Buffer.from('\0\0\0\x18ftypheic\0\0\0\0mif1heic'), 'unsupported-format'],
    ['a JPEG 2000 file', Buffer.from('\0\0\0\x0cjP  \r\n'), 'unsupported-format'],
    ['half a PNG', good.subarray(0, good.length >> 1), 'truncated'],
    ['a PNG without its last byte', good.subarray(0, -1), 'truncated'],
    ['a PNG header only', good.subarray(0, 20), 'truncated'],
    ['a header of 30,000 x 30,000', wide, 'too-large'],
    ['a wrong checksum', flipped, 'corrupt'],
    ['data that is not compressed', corrupt, 'corrupt'],
    ['too few rows', rawPng({ width: 2, height: 2 }, rows([1, 2])), 'truncated'],
    ['no pixels', rawPng({ width: 0, height: 2 }, rows([1, 2])), 'corrupt'],
    [
      'interlaced data that inflates far beyond its size',
      rawPng({ width: 2, height: 2, interlace: 1 }, bomb),
      'corrupt',
    ],
    ['an unknown colour type', rawPng({ width: 2, height: 2, colorType: 5 }, rows([1, 2])), 'corrupt'],
  ])('%s', async (_, bytes, code) => {
    expect(Object.keys(FAILURE_CODES)).toContain(code);
    await expect(decodeImage(bytes)).rejects.toMatchObject({ name: 'ItemError', code });
  });

  test('a PNG that is truncated at any byte', async () => {
    for (let length = 1; length < good.length; length++)
      await expect(decodeImage(good.subarray(0, length))).rejects.toMatchObject({ name: 'ItemError' });
  });

  test('a PNG with any flipped bit, if it cannot be decoded', async () => {
    for (let bit = 0; bit < good.length * 8; bit++) {
      const bytes = Buffer.from(good);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      await decodeImage(bytes).catch((error: unknown) => expect(error).toMatchObject({ name: 'ItemError' }));
    }
  });
});

describe('other formats', () => {
  const data = Uint8Array.from({ length: 16 * 8 * 3 }, (_, i) => (Math.floor(i / 3) % 16) * 15);
  const source = () => sharp(data, { raw: { width: 16, height: 8, channels: 3 } });

  test.each(['webp', 'tiff', 'gif', 'jpeg', 'avif'] as const)('%s', async (format) => {
    const image = await decodeImage(
      await source().toFormat(format, { lossless: true, quality: 100 }).toBuffer(),
    );
    expect([image.width, image.height, image.channels]).toEqual([16, 8, 3]);
    const worst = Math.max(...image.data.map((value, i) => Math.abs(value - data[i]!)));
    expect(worst).toBeLessThanOrEqual(format === 'jpeg' || format === 'avif' ? 24 : 0);
  });

  test('apply the orientation of a camera', async () => {
    const turned = await source().withMetadata({ orientation: 6 }).jpeg().toBuffer();
    const image = await decodeImage(turned);
    expect([image.width, image.height]).toEqual([8, 16]);
  });

  test('have stable codes if truncated, too large or invalid', async () => {
    const noise = Uint8Array.from({ length: 96 * 96 * 3 }, (_, i) => (i * 7919) % 251);
    const jpeg = await sharp(noise, { raw: { width: 96, height: 96, channels: 3 } })
      .jpeg()
      .toBuffer();
    await expect(decodeImage(jpeg.subarray(0, jpeg.length >> 1))).rejects.toMatchObject({
      code: 'truncated',
    });
    await expect(decodeImage(jpeg, { maxPixels: 9000 })).rejects.toMatchObject({ code: 'too-large' });
    const nonsense = Buffer.concat([jpeg.subarray(0, 3), Buffer.from('nothing of the kind')]);
    await expect(decodeImage(nonsense)).rejects.toMatchObject({ name: 'ItemError' });
  });
});

describe('files', () => {
  const codeOf = async (path: string, limits = {}) => {
    const error = await decodeFile(path, limits).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    return failureOf(path, error).error.code;
  };

  test('that cannot be opened have stable codes', async () => {
    const folder = temporaryFolder();
    write(folder, { 'a.png': greyPng(1), 'gone.png': '->nowhere', 'loop.png': '->loop.png' });
    expect(await codeOf(join(folder, 'missing.png'))).toBe('not-found');
    expect(await codeOf(join(folder, 'a.png', 'b.png'))).toBe('not-found');
    expect(await codeOf(join(folder, 'gone.png'))).toBe('not-found');
    expect(await codeOf(join(folder, 'loop.png'))).toBe('link-loop');
    expect(await codeOf(folder)).toBe('not-a-file');
    expect(await codeOf(join(folder, 'a.png'), { maxBytes: 10 })).toBe('too-large');
  });

  test('a pipe without a writer does not wait', async ({ skip }) => {
    skip(process.platform === 'win32', 'Windows has no mkfifo');
    const pipe = join(temporaryFolder(), 'pipe.png');
    execFileSync('mkfifo', [pipe]);
    expect(await codeOf(pipe)).toBe('not-a-file');
  });

  test('an error of the program is not a failure of the item', () => {
    expect(() => failureOf('a.png', new TypeError('oops'))).toThrow('oops');
  });
});
