// Image files of every kind that is decoded, against Pillow; and damaged ones.

import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { decodeImage } from '../../src/pipeline/node/decode.ts';

interface ImageFile {
  readonly name: string;
  readonly file: string;
  /** The code of the failure. Undefined if the file is decoded. */
  readonly code?: string;
  readonly width: number;
  readonly height: number;
  readonly channels: number;
  readonly pixels: string;
}

const FILES: readonly ImageFile[] = JSON.parse(
  readFileSync(new URL('../golden/image-files.json', import.meta.url), 'utf8'),
);

const fromBase64 = (text: string) => new Uint8Array(Buffer.from(text, 'base64'));

test.each(FILES.filter(({ code }) => !code).map((file) => [file.name, file] as const))(
  '%s has the pixels of Pillow',
  async (_, { file, width, height, channels, pixels }) => {
    const image = await decodeImage(fromBase64(file));
    expect([image.width, image.height]).toEqual([width, height]);
    const expected = fromBase64(pixels);
    const step = channels === 1 ? 1 : 3;
    for (let i = 0; i < width * height; i++)
      for (let c = 0; c < 3; c++) {
        const actual = image.data[i * image.channels + (image.channels === 1 ? 0 : c)]!;
        expect(actual, `pixel ${i}, channel ${c}`).toBe(expected[i * step + (step === 1 ? 0 : c)]);
      }
  },
);

test.each(FILES.filter(({ code }) => code).map((file) => [file.name, file] as const))(
  '%s fails',
  async (_, { file, code }) => {
    await expect(decodeImage(fromBase64(file))).rejects.toMatchObject({ name: 'ItemError', code });
  },
);

const CUT_ANYWHERE = [
  'BMP, 24 bits',
  'BMP, RLE8',
  'PPM',
  'PPM, plain',
  'GIF, interlaced',
  'TIFF, tiff_deflate',
  'TIFF, jpeg',
  'TIFF, tiff_lzw',
];

test.each(CUT_ANYWHERE)('%s is never other pixels, wherever it is cut', async (name) => {
  const bytes = fromBase64(FILES.find((file) => file.name === name)!.file);
  const whole = await decodeImage(bytes);
  for (let length = 0; length < bytes.length; length += 1 + Math.floor(bytes.length / 150))
    await decodeImage(bytes.subarray(0, length)).then(
      (image) => expect(image).toEqual(whole),
      (error: unknown) => expect(error).toMatchObject({ name: 'ItemError' }),
    );
});

test.each(
  FILES.filter(({ name }) => /^(BMP|P[BGPA]M|GIF)/.test(name)).map((file) => [file.name, file] as const),
)('%s with any changed byte decodes or fails as an item', async (_, { file }) => {
  const bytes = fromBase64(file);
  for (let at = 0; at < bytes.length; at++) {
    const changed = Uint8Array.from(bytes);
    changed[at]! ^= 1 << (at & 7);
    await decodeImage(changed, { maxPixels: 1 << 16 }).catch((error: unknown) =>
      expect(error).toMatchObject({ name: 'ItemError' }),
    );
  }
});
