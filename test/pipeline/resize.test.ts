import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  crop,
  fromModelInput,
  type Pixels,
  toModelInput,
  withChannels,
} from '../../src/pipeline/images/pixels.ts';
import { admCrop, type Filter, resize, resizeAndCrop } from '../../src/pipeline/images/resize.ts';
import { decodeFile } from '../../src/pipeline/node/decode.ts';

interface Case {
  readonly in: string;
  readonly out: string;
  readonly filter: Filter;
  readonly width: number;
  readonly height: number;
}

const GOLDEN = new URL('../golden/resize/', import.meta.url);
const cases: readonly Case[] = JSON.parse(readFileSync(new URL('cases.json', GOLDEN), 'utf8'));
const golden = (name: string) => decodeFile(new URL(name, GOLDEN).pathname);

const grey = (width: number, height: number, at: (x: number, y: number) => number): Pixels => ({
  width,
  height,
  channels: 1,
  data: Uint8Array.from({ length: width * height }, (_, i) => at(i % width, Math.floor(i / width))),
});

describe('resize', () => {
  test.each(cases)('$in to $width x $height, $filter: equals Pillow in every byte', async (golds) => {
    const image = await golden(golds.in);
    const expected = await golden(golds.out);
    const actual = resize(image, golds.width, golds.height, golds.filter);
    expect(actual.channels).toBe(expected.channels);
    expect(Buffer.from(actual.data).equals(Buffer.from(expected.data))).toBe(true);
  });

  test.each(['box', 'bilinear', 'bicubic', 'lanczos'] as const)('%s keeps a flat image flat', (filter) => {
    for (const [width, height] of [
      [1, 1],
      [3, 50],
      [64, 7],
      [29, 29],
    ] as const)
      expect(
        new Set(
          resize(
            grey(29, 31, () => 201),
            width,
            height,
            filter,
          ).data,
        ),
      ).toEqual(new Set([201]));
  });

  test('returns the image unchanged if the size is the same', () => {
    const image = grey(5, 4, (x, y) => x * y);
    expect(resize(image, 5, 4)).toBe(image);
  });

  test('rejects sides below 1', () => {
    expect(() =>
      resize(
        grey(2, 2, () => 0),
        0,
        3,
      ),
    ).toThrow('got 0x3');
  });
});

describe('resizeAndCrop', () => {
  // [from, to, size after the resize, corner of the crop], computed with torchvision's formulas
  test.each([
    [
      [60, 40],
      [28, 28],
      [42, 28],
      [7, 0],
    ],
    [
      [40, 60],
      [28, 28],
      [28, 42],
      [0, 7],
    ],
    [
      [100, 99],
      [28, 28],
      [28, 28],
      [0, 0],
    ],
    [
      [31, 28],
      [28, 28],
      [31, 28],
      [2, 0],
    ], // 1.5 rounds to even
    [
      [33, 28],
      [28, 28],
      [33, 28],
      [2, 0],
    ], // 2.5 rounds to even
    [
      [10, 200],
      [16, 16],
      [16, 320],
      [0, 152],
    ],
  ] as const)('%j to %j', (from, to, size, corner) => {
    const image = grey(from[0], from[1], (x, y) => (x * 37 + y * 101) % 256);
    const resized = resize(image, size[0], size[1]);
    expect(resizeAndCrop(image, to[0], to[1])).toEqual(crop(resized, corner[0], corner[1], to[0], to[1]));
  });
});

describe('channels and ranges', () => {
  test('grey uses the weights of Pillow, colour repeats the channel', () => {
    const image: Pixels = { width: 2, height: 1, channels: 3, data: Uint8Array.of(255, 0, 0, 1, 2, 250) };
    expect([...withChannels(image, 1).data]).toEqual([76, 30]);
    expect([
      ...withChannels(
        grey(2, 1, (x) => 7 + x),
        3,
      ).data,
    ]).toEqual([7, 7, 7, 8, 8, 8]);
  });

  test('pixels become planes in [-1, 1], and convert back exactly', () => {
    const image: Pixels = { width: 2, height: 1, channels: 3, data: Uint8Array.of(0, 255, 128, 255, 0, 127) };
    const input = toModelInput(image);
    expect([...input.slice(0, 4)]).toEqual([-1, 1, 1, -1]);
    expect(input[4]).toBeCloseTo(128 / 127.5 - 1, 6);
    const every = grey(16, 16, (x, y) => y * 16 + x);
    expect(fromModelInput(toModelInput(every), [1, 16, 16])).toEqual(every);
  });

  test('a crop outside the image is rejected', () => {
    expect(() =>
      crop(
        grey(2, 2, () => 0),
        1,
        0,
        2,
        2,
      ),
    ).toThrow('expected a part of 2x2');
  });
});

describe('admCrop', () => {
  const folder = new URL('../golden/crop/', import.meta.url);
  const crops: readonly { readonly in: string; readonly out: string; readonly side: number }[] = JSON.parse(
    readFileSync(new URL('cases.json', folder), 'utf8'),
  );

  test.each(crops)('$in to $side: equals Pillow in every byte', async (golds) => {
    const image = await decodeFile(new URL(golds.in, folder).pathname);
    const expected = await decodeFile(new URL(golds.out, folder).pathname);
    const actual = admCrop(image, golds.side);
    expect([actual.width, actual.height, actual.channels]).toEqual([
      golds.side,
      golds.side,
      expected.channels,
    ]);
    expect(Buffer.from(actual.data).equals(Buffer.from(expected.data))).toBe(true);
  });

  test('rejects an invalid side', () => {
    expect(() =>
      admCrop(
        grey(4, 4, () => 0),
        0,
      ),
    ).toThrow(RangeError);
  });
});
