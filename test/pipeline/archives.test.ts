import { readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32, deflateRawSync, gzipSync } from 'node:zlib';
import { packTar } from 'modern-tar';
import { describe, expect, test } from 'vitest';
import { nameOf } from '../../src/pipeline/node/image-from.ts';
import { loadImages } from '../../src/pipeline/node/load.ts';
import { findImages, isImage, type SourceOptions } from '../../src/pipeline/node/sources.ts';
import { collect, turns } from './fake-model.ts';
import { greyPng, temporaryFolder, write } from './image-files.ts';

interface ZipOptions {
  readonly stored?: boolean;
  readonly flags?: number;
  readonly crc?: number;
}

/** Returns a zip archive of the given entries, compressed unless `stored`. */
function zipOf(
  files: Readonly<Record<string, Uint8Array>>,
  { stored, flags = 0x800, crc }: ZipOptions = {},
): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const [text, content] of Object.entries(files)) {
    const name = Buffer.from(text);
    const data = stored ? Buffer.from(content) : deflateRawSync(content);
    const fields = Buffer.alloc(26);
    fields.writeUInt16LE(20, 0);
    fields.writeUInt16LE(flags, 2);
    fields.writeUInt16LE(stored ? 0 : 8, 4);
    fields.writeUInt32LE(crc ?? crc32(content), 10);
    fields.writeUInt32LE(data.length, 14);
    fields.writeUInt32LE(content.length, 18);
    fields.writeUInt16LE(name.length, 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), fields, name, data]);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE(offset, 10);
    directory.push(Buffer.concat([Buffer.from('PK\x01\x02\x14\0', 'latin1'), fields, rest, name]));
    parts.push(local);
    offset += local.length;
  }
  const entries = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  end.writeUInt16LE(directory.length, 8);
  end.writeUInt16LE(directory.length, 10);
  end.writeUInt32LE(entries.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, entries, end]);
}

const tarOf = async (files: Readonly<Record<string, Uint8Array>>): Promise<Buffer> =>
  Buffer.from(
    await packTar(
      Object.entries(files).map(([name, data]) => ({ header: { name, size: data.length }, body: data })),
    ),
  );

/** Returns an IDX file of `count` images of 2 x 2, image k with shade k. Its header may give a larger number. */
function idxOf(count: number, promised = count): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt32BE(0x803, 0);
  header.writeUInt32BE(promised, 4);
  header.writeUInt32BE(2, 8);
  header.writeUInt32BE(2, 12);
  return Buffer.concat([header, ...Array.from({ length: count }, (_, k) => Buffer.alloc(4, k))]);
}

const cifarOf = (count: number): Buffer =>
  Buffer.concat(
    Array.from({ length: count }, (_, k) => Buffer.concat([Buffer.of(k % 10), Buffer.alloc(3072, k)])),
  );

/** Reads an input and returns each image as `path: first byte` and each failure as `path: code`. */
async function inside(folder: string, name: string, content: Uint8Array, options: SourceOptions = {}) {
  writeFileSync(join(folder, name), content);
  const items = await collect(loadImages(findImages([join(folder, name)], options), [1, 2, 2]));
  return items.map((item) => {
    const what = 'pixels' in item ? Math.round((item.pixels[0]! + 1) * 127.5) : item.error.code;
    return `${item.path.replace(`${folder}/`, '')}: ${what}`;
  });
}

const FILES = {
  'b.png': greyPng(7),
  'deep/er/a.png': greyPng(9),
  'notes.txt': Buffer.from('hello'),
  '.hidden.png': greyPng(1),
  '__MACOSX/._b.png': greyPng(1),
  './c d é.png': greyPng(11),
};
const IMAGES = ['b.png: 7', 'deep/er/a.png: 9', 'c d é.png: 11'];

describe('archives', () => {
  test.each<readonly [string, () => Buffer | Promise<Buffer>]>([
    ['a.zip', () => zipOf(FILES)],
    ['stored.ZIP', () => zipOf(FILES, { stored: true })],
    ['a.tar', () => tarOf(FILES)],
    ['a.tar.gz', async () => gzipSync(await tarOf(FILES))],
    ['a.tgz', async () => gzipSync(await tarOf(FILES))],
  ])('%s: images at any depth in its order, and nothing hidden', async (name, make) => {
    const passedOver: string[] = [];
    const onPassedOver = (path: string) => passedOver.push(path);
    const folder = temporaryFolder();
    const found = await inside(folder, name, await make(), { onPassedOver });
    expect(found).toEqual(IMAGES.map((image) => `${name}/${image}`));
    expect(passedOver).toEqual([join(folder, name, 'notes.txt')]);
  });

  test.each(['a.zip', 'a.tar'])('%s: names can be listed without reading the images', async (name) => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, name), name.endsWith('zip') ? zipOf(FILES) : await tarOf(FILES));
    const items = await collect(findImages([join(folder, name)], { namesOnly: true }));
    expect(items).toHaveLength(3);
    expect(items.every(isImage)).toBe(true);
  });

  test('archives are opened if a pattern or a list names them, but not if they are in a folder', async () => {
    const folder = temporaryFolder();
    write(folder, { 'x.zip': zipOf({ 'a.png': greyPng(1) }), 'y.zip': zipOf({ 'a.png': greyPng(2) }) });
    const found = async (input: string, options = {}) =>
      (await collect(findImages([input], options))).map((item) =>
        isImage(item) ? nameOf(item).slice(folder.length + 1) : item.error.code,
      );
    expect(await found(join(folder, '*.zip'))).toEqual(['x.zip/a.png', 'y.zip/a.png']);
    const stdin = (async function* () {
      yield Buffer.from(join(folder, 'y.zip'));
    })();
    expect(await found('-', { stdin })).toEqual(['y.zip/a.png']);
    const passedOver: string[] = [];
    const onPassedOver = (path: string) => passedOver.push(path);
    expect(await found(folder, { onPassedOver })).toEqual([]);
    expect(passedOver).toHaveLength(2);
  });

  test('an entry with a path outside the archive is one failed item', async () => {
    const files = { '../../evil.png': greyPng(1), '/etc/x.png': greyPng(2), 'good.png': greyPng(3) };
    for (const [name, content] of [
      ['a.zip', zipOf(files)],
      ['a.tar', await tarOf(files)],
    ] as const)
      expect(await inside(temporaryFolder(), name, content)).toEqual([
        expect.stringMatching(/evil\.png: corrupt$/),
        expect.stringMatching(/x\.png: corrupt$/),
        `${name}/good.png: 3`,
      ]);
  });
});

describe('damage gives failed items', () => {
  const two = { 'a.png': greyPng(1), 'b.png': greyPng(2) };

  test('zip: a wrong checksum, an encrypted entry, broken deflate data', async () => {
    const folder = temporaryFolder();
    expect(await inside(folder, 'a.zip', zipOf(two, { crc: 5 }))).toEqual([
      'a.zip/a.png: corrupt',
      'a.zip/b.png: corrupt',
    ]);
    expect((await inside(folder, 'b.zip', zipOf(two, { flags: 0x801 })))[0]).toBe(
      'b.zip/a.png: unsupported-format',
    );
    const broken = zipOf(two);
    broken.fill(0xff, 36, 50);
    const found = await inside(folder, 'c.zip', broken);
    expect(found).toEqual(['c.zip/a.png: corrupt', 'c.zip/b.png: 2']);
  });

  test('files that are not archives', async () => {
    const folder = temporaryFolder();
    for (const name of ['a.zip', 'a.tar', 'a.tar.gz', 'a-idx3-ubyte', 'a.bin', 'a.bin.gz'])
      for (const content of [Buffer.alloc(0), Buffer.from('hello world'.repeat(100))])
        expect(await inside(folder, name, content)).toEqual([
          expect.stringMatching(new RegExp(`^${name}: (truncated|corrupt|empty|not-an-image)$`)),
        ]);
  });

  const whole: Readonly<Record<string, () => Promise<Buffer>>> = {
    'a.zip': async () => zipOf(two),
    'a.tar': () => tarOf(two),
    'a.tgz': async () => gzipSync(await tarOf(two)),
    'a-idx3-ubyte.gz': async () => gzipSync(idxOf(2)),
    'a-idx3-ubyte': async () => idxOf(2),
    'a.bin': async () => cifarOf(2),
  };
  test.each(Object.entries(whole))(
    '%s, truncated at any byte or with any byte changed, never ends the run',
    async (name, make) => {
      const bytes = await make();
      const folder = temporaryFolder();
      const step = Math.max(1, Math.floor(bytes.length / 60));
      for (let at = 0; at < bytes.length; at += step) {
        const cut = await inside(folder, name, bytes.subarray(0, at));
        // A tar archive ends with 1,024 zero bytes, and a CIFAR batch does not contain its own length.
        if (!/tar$|bin$/.test(name)) expect(cut.at(-1)).toMatch(/: [a-z-]+$/);
        const changed = Buffer.from(bytes);
        changed[at]! ^= 0x55;
        await inside(folder, name, changed);
      }
    },
    120_000,
  );

  test('missing files, and paths that are not files', async () => {
    const folder = temporaryFolder();
    for (const name of ['a.zip', 'a.tar', 'a.bin']) {
      const [item] = await collect(findImages([join(folder, name)]));
      expect(item).toMatchObject({ path: join(folder, name), error: { code: 'not-found' } });
    }
  });
});

describe('records', () => {
  test('IDX: every image by its number, without labels, compressed or not', async () => {
    const folder = temporaryFolder();
    const expected = (name: string) => [0, 1, 2].map((k) => `${name}#${k}: ${k}`);
    expect(await inside(folder, 't-idx3-ubyte', idxOf(3))).toEqual(expected('t-idx3-ubyte'));
    expect(await inside(folder, 't-idx3-ubyte.gz', gzipSync(idxOf(3)))).toEqual(expected('t-idx3-ubyte.gz'));
  });

  test('IDX: a truncated file yields the complete images, then a failure', async () => {
    expect(await inside(temporaryFolder(), 'a.idx', idxOf(2, 5))).toEqual([
      'a.idx#0: 0',
      'a.idx#1: 1',
      'a.idx: truncated',
    ]);
  });

  test('IDX: a file of labels is not an image', async () => {
    const labels = Buffer.from([0, 0, 8, 1, 0, 0, 0, 2, 1, 1]);
    expect(await inside(temporaryFolder(), 't-labels-idx1-ubyte', labels)).toEqual([
      't-labels-idx1-ubyte: not-an-image',
    ]);
  });

  test('CIFAR: every image by its number', async () => {
    expect(await inside(temporaryFolder(), 'test_batch.bin', cifarOf(2))).toEqual([
      'test_batch.bin#0: 0',
      'test_batch.bin#1: 1',
    ]);
  });
});

test('an archive closes its file if its consumer stops early', async ({ skip }) => {
  skip(process.platform !== 'linux', 'only Linux lists open descriptors');
  const folder = temporaryFolder();
  const open = () =>
    readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).startsWith(folder);
      } catch {
        return false;
      }
    }).length;
  const many = Object.fromEntries(Array.from({ length: 500 }, (_, k) => [`${k}.png`, greyPng(k % 256)]));
  write(folder, { 'a.zip': zipOf(many), 'a.tar': await tarOf(many), 'b.tgz': gzipSync(await tarOf(many)) });
  for (const name of ['a.zip', 'a.tar', 'b.tgz']) {
    const found = findImages([join(folder, name)]);
    await found.next();
    await found.return(undefined);
  }
  while (open() > 0) await turns(1); // until the timeout of the test
});
