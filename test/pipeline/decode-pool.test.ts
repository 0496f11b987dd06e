// Threads that decode large files: the same results as without them, failures of single items, and their end.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { expect, onTestFinished, test } from 'vitest';
import type { ImageSummary } from '../../src/pipeline/images/conversions.ts';
import { type DecodePool, newDecodePool } from '../../src/pipeline/node/decode-pool.ts';
import { loadImages } from '../../src/pipeline/node/load.ts';
import { collect } from './fake-model.ts';
import { temporaryFolder } from './image-files.ts';

/** Writes a JPEG file of more than 256 KiB. */
async function photo(path: string, seed: number): Promise<string> {
  const [width, height] = [700, 500];
  let state = seed;
  const data = Uint8Array.from({ length: width * height * 3 }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return state >>> 24;
  });
  const bytes = await sharp(data, { raw: { width, height, channels: 3 } })
    .jpeg({ quality: 95 })
    .toBuffer();
  writeFileSync(path, bytes);
  return path;
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Repeats a request until threads take it. */
async function ask(pool: DecodePool, image: string) {
  for (;;) {
    const reply = pool.load({ image, shape: [1, 28, 28], options: {} });
    if (reply) return reply;
    await turn();
  }
}

async function* each(paths: readonly string[]) {
  yield* paths;
}

test('threads give the items and the failures of the calling thread, in order', async () => {
  const folder = temporaryFolder();
  const paths = await Promise.all(
    Array.from({ length: 16 }, (_, i) => photo(join(folder, `${i}.jpg`), i + 1)),
  );
  const damaged = join(folder, 'damaged.jpg');
  await photo(damaged, 99);
  writeFileSync(damaged, (await sharp(damaged).jpeg({ quality: 100 }).toBuffer()).subarray(0, 300_000));
  paths.splice(12, 0, damaged);
  const summaries: ImageSummary[] = [];
  const shape = [3, 32, 32] as const;
  const items = await collect(
    loadImages(each(paths), shape, { onSummary: (summary) => summaries.push(summary) }),
  );
  const expected = await collect(loadImages(each(paths), shape, { onDecoded: () => {} }));
  expect(items).toEqual(expected);
  expect(items[12]).toMatchObject({ path: damaged, error: { code: 'truncated' } });
  expect(summaries).toEqual(Array(16).fill({ width: 700, height: 500, channels: 3 }));
});

test('a thread decodes a file, and reports a missing one', async () => {
  const folder = temporaryFolder();
  const path = await photo(join(folder, 'a.jpg'), 5);
  const pool = newDecodePool(2);
  onTestFinished(() => pool.close());
  const [item] = await collect(loadImages(each([path]), [1, 28, 28]));
  expect(await ask(pool, path)).toEqual({ item, summary: { width: 700, height: 500, channels: 3 } });
  const gone = join(folder, 'gone.jpg');
  expect(await ask(pool, gone)).toMatchObject({ failure: { path: gone, error: { code: 'not-found' } } });
});

test('a thread that ends fails its own item only; another one takes its place', async () => {
  const program = join(temporaryFolder(), 'ends.mjs');
  writeFileSync(
    program,
    `import { parentPort } from 'node:worker_threads';
parentPort.on('message', ({ image }) => {
  if (image === 'bad') throw new Error('out of memory');
  parentPort.postMessage({ item: { path: image, pixels: new Float32Array(1) }, summary: undefined });
});
parentPort.postMessage('ready');`,
  );
  const pool = newDecodePool(2, program);
  onTestFinished(() => pool.close());
  expect(await ask(pool, 'a')).toMatchObject({ item: { path: 'a' } });
  const replies = ['b', 'bad', 'c', 'bad', 'd'].map((image) => ask(pool, image));
  const outcomes = await Promise.allSettled(replies);
  expect(outcomes.map(({ status }) => status)).toEqual([
    'fulfilled',
    'rejected',
    'fulfilled',
    'rejected',
    'fulfilled',
  ]);
  await expect(replies[1]).rejects.toMatchObject({ code: 'decoder-failed' });
  expect(await ask(pool, 'e')).toMatchObject({ item: { path: 'e' } });
});

test('closing ends threads that work; their requests reject', async () => {
  const program = join(temporaryFolder(), 'waits.mjs');
  writeFileSync(
    program,
    `import { parentPort } from 'node:worker_threads';
parentPort.on('message', () => {});
parentPort.postMessage('ready');`,
  );
  const pool = newDecodePool(2, program);
  let reply: ReturnType<DecodePool['load']>;
  while (!reply) {
    reply = pool.load({ image: 'a', shape: [1, 1, 1], options: {} });
    await turn();
  }
  pool.close();
  await expect(reply).rejects.toMatchObject({ code: 'decoder-failed' });
});

test('without a program for threads the caller decodes', async () => {
  const pool = newDecodePool(2, join(temporaryFolder(), 'missing.mjs'));
  for (let i = 0; i < 100; i++) {
    expect(pool.load({ image: 'a', shape: [1, 1, 1], options: {} })).toBeUndefined();
    await turn();
  }
});
