import { createReadStream, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import sharp from 'sharp';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { ImageInput } from '../../src/pipeline/images/image-input.ts';
import { prepareImage } from '../../src/pipeline/images/prepare.ts';
import { checkPixels } from '../../src/pipeline/images/raw-pixels.ts';
import { imageFrom, itemFrom } from '../../src/pipeline/node/image-from.ts';
import { loadImages } from '../../src/pipeline/node/load.ts';
import { encodePng } from '../../src/pipeline/node/png.ts';
import { collect } from './fake-model.ts';
import { greyPng, temporaryFolder, write } from './image-files.ts';

const SIDES = { width: 61, height: 40 } as const;

/** A smooth colour image with alpha, as raw RGBA. */
const RGBA = Uint8Array.from({ length: SIDES.width * SIDES.height * 4 }, (_, i) => {
  const pixel = i >> 2;
  const [x, y] = [pixel % SIDES.width, Math.floor(pixel / SIDES.width)];
  return [x * 4, y * 6, (x * y) % 256, 255 - x][i & 3]!;
});

const picture = () => sharp(RGBA, { raw: { ...SIDES, channels: 4 } });
const opaque = () => picture().removeAlpha();

/** One file of every kind that is decoded differently. */
const FILES: Readonly<Record<string, () => Promise<Buffer>>> = {
  'colour.png': () => opaque().png().toBuffer(),
  'alpha.png': () => picture().png().toBuffer(),
  'grey.png': () => opaque().greyscale().png().toBuffer(),
  'palette.png': () => opaque().png({ palette: true, colours: 16 }).toBuffer(),
  'rgb16.png': () => opaque().toColourspace('rgb16').png().toBuffer(),
  'grey16.png': () => opaque().toColourspace('grey16').png().toBuffer(),
  'photo.jpg': () => opaque().jpeg({ quality: 90 }).toBuffer(),
  'grey.jpg': () => opaque().greyscale().jpeg().toBuffer(),
  'turned.jpg': () => opaque().withMetadata({ orientation: 6 }).jpeg().toBuffer(),
  'photo.webp': () => picture().webp({ lossless: true }).toBuffer(),
  'scan.tif': () => opaque().tiff().toBuffer(),
};

/** Serves one body until the end of the test, and returns its URL. */
async function serve(body: Buffer, status = 200, declareLength = true): Promise<string> {
  const server = createServer((_, response) => {
    response.writeHead(status, declareLength ? { 'content-length': body.length } : {});
    response.end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/photo`;
}

/** All ways to pass an image file. */
const WAYS: Readonly<Record<string, (path: string, bytes: Buffer) => ImageInput | Promise<ImageInput>>> = {
  path: (path) => path,
  Buffer: (_, bytes) => bytes,
  Uint8Array: (_, bytes) => new Uint8Array(bytes),
  'a view into a larger buffer': (_, bytes) =>
    new Uint8Array(Buffer.concat([Buffer.alloc(5), bytes, Buffer.alloc(3)])).subarray(5, 5 + bytes.length),
  ArrayBuffer: (_, bytes) => new Uint8Array(bytes).buffer,
  SharedArrayBuffer: (_, bytes) => {
    const shared = new SharedArrayBuffer(bytes.length);
    new Uint8Array(shared).set(bytes);
    return shared;
  },
  'named bytes': (path, data) => ({ path, data }),
  Blob: (_, bytes) => new Blob([new Uint8Array(bytes)]),
  'file: URL': (path) => pathToFileURL(path),
  'data: URL': (_, bytes) => new URL(`data:image/png;base64,${bytes.toString('base64')}`),
  'http: URL': async (_, bytes) => new URL(await serve(bytes)),
  'web ReadableStream': (_, bytes) => new Blob([new Uint8Array(bytes)]).stream(),
  'web stream that is not iterable': (_, bytes) => {
    const stream = new Blob([new Uint8Array(bytes)]).stream();
    return { getReader: () => stream.getReader() };
  },
  'Node Readable': (path) => createReadStream(path, { highWaterMark: 100 }),
  'async iterable': async function* (_: string, bytes: Buffer) {
    for (let at = 0; at < bytes.length; at += 77) yield bytes.subarray(at, at + 77);
  },
  'sharp instance': (path) => sharp(path),
  'sharp instance of bytes': (_, bytes) => sharp(bytes),
  'an image decoded before': (_, bytes) => imageFrom(bytes),
};

describe.each(Object.entries(FILES))('%s gives the same bytes as its file', (name, make) => {
  test.each(Object.entries(WAYS))('passed as %s', async (_, way) => {
    const bytes = await make();
    const folder = temporaryFolder();
    write(folder, { [name]: bytes });
    const path = join(folder, name);
    for (const shape of [
      [1, 28, 28],
      [3, 32, 32],
      [3, 40, 40],
    ] as const) {
      const expected = await itemFrom(path, shape);
      const actual = await itemFrom(await way(path, bytes), shape);
      expect(Buffer.from(actual.pixels.buffer).equals(Buffer.from(expected.pixels.buffer))).toBe(true);
    }
  });
});

describe('raw pixels', () => {
  const file = async () => {
    const folder = temporaryFolder();
    write(folder, { 'a.png': await FILES['alpha.png']!() });
    return itemFrom(join(folder, 'a.png'), [3, 28, 28]);
  };
  const rgb = Uint8Array.from(
    { length: (RGBA.length / 4) * 3 },
    (_, i) => RGBA[Math.floor(i / 3) * 4 + (i % 3)]!,
  );
  const scaled = (low: number, high: number) =>
    Float32Array.from(rgb, (value) => low + ((high - low) * value) / 255);

  test.each<readonly [string, ImageInput]>([
    ['ImageData', { data: new Uint8ClampedArray(RGBA), ...SIDES }],
    ['RGBA', { data: RGBA, ...SIDES, channels: 4 }],
    ['RGB', { data: rgb, ...SIDES, channels: 3 }],
    ['16 bits', { data: Uint16Array.from(rgb, (value) => value * 257), ...SIDES, channels: 3 }],
    ['floats of 0 to 1', { data: scaled(0, 1), ...SIDES, channels: 3, range: [0, 1] }],
    ['floats of -1 to 1', { data: scaled(-1, 1), ...SIDES, channels: 3, range: [-1, 1] }],
    ['floats of 0 to 255', { data: Float64Array.from(rgb), ...SIDES, channels: 3, range: [0, 255] }],
  ])('%s is the same image as its PNG file', async (_, input) => {
    expect((await itemFrom(input, [3, 28, 28])).pixels).toEqual((await file()).pixels);
  });

  test('grey with alpha loses its alpha', async () => {
    const image = await imageFrom({ data: Uint8Array.of(7, 0, 9, 255), width: 2, height: 1, channels: 2 });
    expect(image).toEqual({ path: '', width: 2, height: 1, channels: 1, data: Uint8Array.of(7, 9) });
  });

  const one = { width: 2, height: 1, channels: 1 } as const;
  test.each<readonly [string, unknown, RegExp]>([
    [
      'floats of 0 to 1 without a range',
      { ...one, data: Float32Array.of(0, 0.9) },
      /from 0 to 0\.9 and no range.*\[0, 1\]/,
    ],
    [
      'floats of 0 to 255 without a range',
      { ...one, data: Float32Array.of(3, 250) },
      /from 3 to 250.*\[0, 255\]/,
    ],
    [
      'floats of -1 to 1 without a range',
      { ...one, data: Float32Array.of(-1, 1) },
      /from -1 to 1.*\[-1, 1\]/,
    ],
    [
      'floats outside their range',
      { ...one, data: Float32Array.of(0, 200), range: [0, 1] },
      /in the range \[0, 1\], got values from 0 to 200/,
    ],
    [
      'a range upside down',
      { ...one, data: Float32Array.of(0, 1), range: [1, 0] },
      /low < high, got \[1, 0\]/,
    ],
    ['NaN', { ...one, data: Float32Array.of(0, Number.NaN), range: [0, 1] }, /got NaN at index 1/],
    [
      'infinity',
      { ...one, data: Float32Array.of(Number.POSITIVE_INFINITY, 0), range: [0, 1] },
      /got Infinity at index 0/,
    ],
    ['a range for bytes', { ...one, data: Uint8Array.of(0, 1), range: [0, 1] }, /range with floats only/],
    [
      'too few values',
      { data: new Uint8Array(5), width: 2, height: 1, channels: 3 },
      /expected 6 values .*got 5/,
    ],
    ['RGB given as RGBA', { data: new Uint8Array(6), width: 2, height: 1 }, /expected 8 values .*got 6/],
    ['no pixels', { data: new Uint8Array(0), width: 0, height: 3, channels: 1 }, /got 0 and 3/],
    [
      'five channels',
      { data: new Uint8Array(10), width: 2, height: 1, channels: 5 },
      /1 to 4 channels, got 5/,
    ],
    ['signed bytes', { ...one, data: new Int8Array(2) }, /got Int8Array/],
  ])('%s is refused', async (_, input, message) => {
    await expect(imageFrom(input as ImageInput)).rejects.toMatchObject({
      name: 'ItemError',
      code: 'invalid-pixels',
      message: expect.stringMatching(message),
    });
  });

  test('too many pixels are rejected before they are read', async () => {
    const input = { data: new Uint8Array(12), width: 4, height: 3, channels: 1 };
    await expect(imageFrom(input, { maxPixels: 11 })).rejects.toMatchObject({ code: 'too-large' });
  });
});

describe('pixels that already fit a model', () => {
  const shape = [1, 2, 2] as const;

  test('are used unchanged', async () => {
    const pixels = Float32Array.of(-1, 0.25, 1, -0.3);
    const item = await itemFrom({ pixels, path: 'a' }, shape);
    expect(item.path).toBe('a');
    expect(item.pixels).toBe(pixels);
  });

  test.each<readonly [string, Float32Array, RegExp]>([
    ['a wrong length', new Float32Array(3), /expected 4 values \(1 x 2 x 2\), got 3/],
    ['NaN', Float32Array.of(0, 0, Number.NaN, 0), /got NaN at index 2/],
    [
      'values of 0 to 255',
      Float32Array.of(0, 12, 255, 3),
      /from 0 to 255; scale them, or use .*range: \[0, 255\]/,
    ],
    ['values of 0 to 1 with black', Float32Array.of(0, 0.5, 1, 0), /from 0 to 1; .*range: \[0, 1\]/],
    ['values a little outside', Float32Array.of(-1.1, 0, 1, 0), /expected values in \[-1, 1\]/],
  ])('%s is refused', (_, pixels, message) => {
    expect(() => checkPixels(pixels, shape)).toThrow(message);
  });

  test('may be all zeros, have rounding errors, or be bright', () => {
    checkPixels(new Float32Array(4), shape);
    checkPixels(Float32Array.of(-1.000001, 1.000001, 0, 0), shape);
    checkPixels(Float32Array.of(0.1, 0.5, 1, 0.2), shape);
  });
});

describe('names', () => {
  test.each<readonly [string, ImageInput, string]>([
    ['bytes', greyPng(1), ''],
    ['a File', new File([new Uint8Array(greyPng(1))], 'upload.png'), 'upload.png'],
    ['named bytes', { path: 'x/y.png', data: greyPng(1) }, 'x/y.png'],
    ['raw pixels', { path: 'frame 7', data: new Uint8Array(4), width: 1, height: 1 }, 'frame 7'],
    ['a data: URL', new URL(`data:;base64,${greyPng(1).toString('base64')}`), ''],
  ])('%s', async (_, input, name) => {
    expect((await imageFrom(input)).path).toBe(name);
    expect((await imageFrom(input, { name: 'given' })).path).toBe('given');
  });
});

describe('faults have codes', () => {
  const codeOf = (source: unknown, options = {}) =>
    imageFrom(source as ImageInput, options).then(
      () => 'none',
      (error: { readonly name: string; readonly code: string }) =>
        error.name === 'ItemError' ? error.code : error.name,
    );

  test('of files, bytes and values that are not images', async () => {
    expect(await codeOf('/nowhere/a.png')).toBe('not-found');
    expect(await codeOf(sharp('/nowhere/a.png'))).toBe('not-found');
    expect(await codeOf(new URL('file:///nowhere/a.png'))).toBe('not-found');
    expect(await codeOf(new URL('file://another-host/a.png'))).toBe('not-found');
    await expect(imageFrom('https://example.org/a.png')).rejects.toThrow('to fetch a URL, pass new URL(...)');
    expect(await codeOf(new Uint8Array(0))).toBe('empty');
    expect(await codeOf(Buffer.from('hello'))).toBe('not-an-image');
    for (const value of [undefined, null, 7, {}, [], () => 1])
      expect(await codeOf(value)).toBe('not-an-image');
  });

  test('of streams that fail, contain text or never end', async () => {
    const failing = Readable.from(
      (async function* () {
        yield greyPng(1).subarray(0, 9);
        throw new Error('disk on fire');
      })(),
    );
    expect(await codeOf(failing)).toBe('unreadable');
    expect(await codeOf(Readable.from(['text']))).toBe('not-an-image');
    let returned = false;
    const endless = (async function* () {
      try {
        for (;;) yield new Uint8Array(1000);
      } finally {
        returned = true;
      }
    })();
    expect(await codeOf(endless, { maxBytes: 10_000 })).toBe('too-large');
    expect(returned).toBe(true);
  });

  test('of servers', async () => {
    const good = greyPng(1);
    expect(await codeOf(new URL(await serve(good, 404)))).toBe('not-found');
    expect(await codeOf(new URL(await serve(good, 500)))).toBe('unreadable');
    expect(await codeOf(new URL(await serve(good)), { maxBytes: 10 })).toBe('too-large');
    expect(await codeOf(new URL(await serve(good, 200, false)), { maxBytes: 10 })).toBe('too-large');
    expect(await codeOf(new URL('http://127.0.0.1:1/'))).toBe('unreadable');
    expect(await codeOf(new URL('ftp://example.org/a.png'))).toBe('unreadable');
  });

  test('of a Blob that is too large, which is not read', async () => {
    const blob = { size: 100, arrayBuffer: () => Promise.reject(new Error('was read')) };
    expect(await codeOf(blob, { maxBytes: 10 })).toBe('too-large');
  });

  test('abort rejects with the reason of the signal, even while a stream is silent', async () => {
    const controller = new AbortController();
    const silent = { [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }) };
    const pending = imageFrom(silent, { signal: controller.signal });
    controller.abort(new Error('enough'));
    await expect(pending).rejects.toThrow('enough');
    await expect(imageFrom(greyPng(1), { signal: controller.signal })).rejects.toThrow('enough');
  });
});

test('loadImages takes paths, failures, named bytes and anything else in one stream', async () => {
  const folder = temporaryFolder();
  write(folder, { 'a.png': greyPng(10) });
  const failure = { path: 'gone', error: { code: 'not-found', message: 'no' } };
  const source = (async function* () {
    yield join(folder, 'a.png');
    yield failure;
    yield { path: 'b.png', data: readFileSync(join(folder, 'a.png')) };
    yield { path: 'c', data: new Uint8Array(4).fill(10), width: 2, height: 2, channels: 1 };
    yield { path: 'd', data: Float32Array.of(1), width: 1, height: 1, channels: 1 };
    yield { path: 'e', pixels: new Float32Array(4).fill(-0.5) };
    yield encodePng({ width: 2, height: 2, channels: 1, data: new Uint8Array(4).fill(10) });
  })();
  const items = await collect(loadImages(source, [1, 2, 2]));
  const pixels = prepareImage(
    { width: 2, height: 2, channels: 1, data: new Uint8Array(4).fill(10) },
    [1, 2, 2],
  );
  const geometry = { height: 2, width: 2, top: 0, left: 0 };
  expect(items).toEqual([
    { path: join(folder, 'a.png'), pixels, geometry },
    failure,
    { path: 'b.png', pixels, geometry },
    { path: 'c', pixels, geometry },
    { path: 'd', error: { code: 'invalid-pixels', message: expect.stringContaining('no range') } },
    { path: 'e', pixels: new Float32Array(4).fill(-0.5) },
    { path: '', pixels, geometry },
  ]);
});

test('loadImages says where the pixels were in the image', async () => {
  const folder = temporaryFolder();
  write(folder, { 'wide.png': encodePng({ width: 9, height: 4, channels: 1, data: new Uint8Array(36) }) });
  const source = (async function* () {
    yield join(folder, 'wide.png');
    yield {
      path: 'ready',
      pixels: new Float32Array(4).fill(-0.5),
      geometry: { height: 8, width: 8, top: 1, left: 2 },
    };
  })();
  const items = await collect(loadImages(source, [1, 2, 2]));
  // Resized to 4 x 2, of which the columns 1 and 2 remain.
  expect(items).toMatchObject([
    { geometry: { height: 4, width: 9, top: 0, left: 1 } },
    { geometry: { height: 8, width: 8, top: 1, left: 2 } },
  ]);
});
