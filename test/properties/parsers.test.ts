// Files that anyone may have made: for arbitrary bytes, and for valid files with a few bytes changed, every parser returns
// a value or throws a typed error of one sentence. It never throws anything else, never hangs (the timeout of the test
// says so) and never allocates more memory than the size of its input allows.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { ItemError, ModelError, UnsupportedError, UsageError } from '../../src/errors.ts';
import { parseJson } from '../../src/graph/files/json.ts';
import { headerLength, parseHeader } from '../../src/graph/files/safetensors-header.ts';
import { zipEntries } from '../../src/graph/files/stored-zip.ts';
import { readTorch, TorchTensor } from '../../src/graph/files/torch-file.ts';
import { openBytes } from '../../src/graph/files/virtual-files.ts';
import { parseCard } from '../../src/graph/folders/card.ts';
import { parseSchedule } from '../../src/graph/folders/schedule.ts';
import { product } from '../../src/numbers.ts';
import { readCifar, readIdx } from '../../src/pipeline/images/records.ts';
import { csvRows } from '../../src/pipeline/node/csv.ts';
import { decodePng } from '../../src/pipeline/node/png.ts';
import { greyPng } from '../pipeline/image-files.ts';
import { runs } from './runs.ts';

const ROOT = join(import.meta.dirname, '../..');
const golden = (path: string): Uint8Array => readFileSync(join(ROOT, 'test/golden', path));
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

/** Most pixels of an image in these tests. */
const MAX_PIXELS = 4096;

/** Bytes that a parser may allocate besides what is proportional to its input: buffers of Node's streams and of zlib. */
const FIXED = 8 * 2 ** 20;

const folder = mkdtempSync(join(tmpdir(), 'diffclass-parsers-'));
afterAll(() => rmSync(folder, { recursive: true }));

interface Parser {
  readonly parse: (bytes: Uint8Array) => unknown;
  readonly valid: readonly Uint8Array[];
  /** Bytes of memory per byte of input that a parser may allocate. */
  readonly factor?: number;
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array, undefined> {
  yield bytes;
}

async function drained(source: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of source);
}

/** Reads every tensor of what a torch file holds. */
async function readTensors(value: unknown, seen = new Set<unknown>()): Promise<void> {
  if (typeof value !== 'object' || value === null || seen.has(value)) return;
  seen.add(value);
  if (value instanceof TorchTensor)
    await value.read(0, new Uint8Array(product(value.shape) * value.storage.elementBytes));
  else if (value instanceof Map) for (const one of value.values()) await readTensors(one, seen);
  else if (Array.isArray(value)) for (const one of value) await readTensors(one, seen);
}

function bigEndian(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => void bytes.writeUInt32BE(value, 4 * i));
  return bytes;
}

const IDX_IMAGES = Buffer.concat([bigEndian(0x803, 2, 2, 3), Buffer.from('abcdefghijkl')]);
const IDX_LABELS = Buffer.concat([bigEndian(0x801, 2), Buffer.from([1, 2])]);

const TORCH_FILES: Omit<Parser, 'parse'> = {
  valid: ['views.pt', 'views-legacy.pt', 'uncond.pt', 'uncond.pkl'].map((name) =>
    golden(`edmpickle/${name}`),
  ),
  // An operation of one byte can make a list, a set or a map; a storage in text is copied byte by byte.
  factor: 400,
};

const PARSERS: Readonly<Record<string, Parser>> = {
  'pickle and torch file': {
    parse: async (bytes) => readTensors(await readTorch(openBytes(bytes), 'a file')),
    ...TORCH_FILES,
  },
  'torch file whose unknown names are ignored': {
    parse: async (bytes) => readTensors(await readTorch(openBytes(bytes), 'a file', { unknown: 'ignore' })),
    ...TORCH_FILES,
  },
  'stored zip': {
    parse: (bytes) => zipEntries(openBytes(bytes), 'a file'),
    valid: [golden('edmpickle/views.pt')],
  },
  'safetensors header': {
    parse: (bytes) => {
      const length = headerLength(bytes.subarray(0, 8), 'a file', bytes.length);
      parseHeader(bytes.subarray(8, 8 + length), 'a file', bytes.length);
    },
    valid: [golden('cliptext-gelu/io.safetensors'), golden('edmpickle/uncond.safetensors')],
    factor: 100,
  },
  PNG: {
    parse: (bytes) => decodePng(bytes, MAX_PIXELS),
    valid: [greyPng(7), golden('crop/0-in.png'), golden('resize/00-in.png')].filter(
      ({ length }) => length < 20_000,
    ),
  },
  'IDX images': {
    parse: (bytes) => drained(readIdx(once(bytes), once(IDX_LABELS), 'labels')),
    valid: [IDX_IMAGES],
  },
  'IDX labels': {
    parse: (bytes) => drained(readIdx(once(IDX_IMAGES), once(bytes), 'labels')),
    valid: [IDX_LABELS],
  },
  'CIFAR-10 batch': {
    parse: (bytes) => drained(readCifar(once(bytes), 1)),
    valid: [new Uint8Array(2 * 3073)],
  },
  'CIFAR-100 batch': { parse: (bytes) => drained(readCifar(once(bytes), 2)), valid: [new Uint8Array(3074)] },
  CSV: {
    parse: (bytes) => {
      const file = join(folder, 'table.csv');
      writeFileSync(file, bytes);
      return drained(csvRows(file));
    },
    valid: [text('path,label\na.png,cat\n"b, c.png","d ""e"""\n'), text('\ufeffpath;label\r\na;b\r\n')],
    factor: 400,
  },
  JSON: {
    parse: (bytes) => parseJson(bytes, 'a file', true),
    valid: [text('{"a": [1, -Infinity, "\\u00e9"], "b": {"c": null}}')],
    factor: 400,
  },
  'card.json': {
    parse: (bytes) => parseCard(parseJson(bytes, 'a file'), 1000, 'a file'),
    valid: ['fashion-mnist', 'fashion-mnist-multi-head'].map((name) =>
      readFileSync(join(ROOT, 'weights', name, 'card.json')),
    ),
    factor: 400,
  },
  'scheduler_config.json': {
    parse: (bytes) => parseSchedule(parseJson(bytes, 'a file', true), 'a file'),
    valid: [readFileSync(join(ROOT, 'weights/fashion-mnist/scheduler/scheduler_config.json'))],
    factor: 400,
  },
};

/** A change of a file: bytes overwritten, cut out, inserted or repeated, at a place that is a share of its length. */
const changes = fc.record({
  kind: fc.constantFrom('set', 'set', 'set', 'cut', 'insert', 'end', 'repeat'),
  place: fc.double({ min: 0, max: 0.999_999, noNaN: true }),
  bytes: fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 8 }),
    fc.constantFrom(...[0, 0xff, 0x7f, 0x80].map((byte) => new Uint8Array(4).fill(byte))),
  ),
});

function changed(
  valid: Uint8Array,
  { kind, place, bytes }: { kind: string; place: number; bytes: Uint8Array },
) {
  const at = Math.floor(place * valid.length);
  const [before, after] = [valid.subarray(0, at), valid.subarray(at)];
  switch (kind) {
    case 'cut':
      return Buffer.concat([before, after.subarray(bytes.length)]);
    case 'insert':
      return Buffer.concat([before, bytes, after]);
    case 'end':
      return Buffer.from(before);
    case 'repeat':
      return Buffer.concat([before, after.subarray(0, 64), after]);
    default:
      return Buffer.concat([before, bytes.subarray(0, after.length), after.subarray(bytes.length)]);
  }
}

const TYPED = [ModelError, ItemError, UsageError, UnsupportedError];

/** Runs a parser; checks what it throws, and how much memory it took. */
async function tried({ parse, factor = 40 }: Parser, bytes: Uint8Array): Promise<void> {
  const before = process.memoryUsage();
  let used = 0;
  try {
    const made = parse(bytes);
    if (made instanceof Promise) await made;
  } catch (error) {
    if (!TYPED.some((type) => error instanceof type)) throw error;
    const { message } = error as Error;
    expect(message).toMatch(/^\S[^\n\r]*\S$/);
    expect(message.length).toBeLessThan(1000);
  } finally {
    const after = process.memoryUsage();
    used = after.arrayBuffers - before.arrayBuffers + (after.heapUsed - before.heapUsed);
  }
  expect(used).toBeLessThan(FIXED + factor * Math.max(bytes.length, MAX_PIXELS));
}

describe.each(Object.entries(PARSERS))('%s', (_, parser) => {
  test('the valid files are read', async () => {
    for (const bytes of parser.valid) await parser.parse(bytes);
  });

  test('arbitrary bytes', { timeout: 600_000 }, async () => {
    const bytes = fc.uint8Array({ maxLength: 300 });
    await fc.assert(
      fc.asyncProperty(bytes, (made) => tried(parser, made)),
      runs(100),
    );
  });

  test('the beginning of a valid file, and then arbitrary bytes', { timeout: 600_000 }, async () => {
    const bytes = fc.tuple(fc.constantFrom(...parser.valid), fc.nat(64), fc.uint8Array({ maxLength: 200 }));
    await fc.assert(
      fc.asyncProperty(bytes, ([valid, length, made]) =>
        tried(parser, Buffer.concat([valid.subarray(0, length), made])),
      ),
      runs(100),
    );
  });

  test('valid files with some bytes changed', { timeout: 600_000 }, async () => {
    const bytes = fc.tuple(
      fc.constantFrom(...parser.valid),
      fc.array(changes, { minLength: 1, maxLength: 4 }),
    );
    await fc.assert(
      fc.asyncProperty(bytes, ([valid, all]) => tried(parser, all.reduce<Uint8Array>(changed, valid))),
      runs(150),
    );
  });
});

test('a name with line breaks in a pickle stays one line of a message', async () => {
  // PROTO 2, two SHORT_BINUNICODE, STACK_GLOBAL
  const bytes = Uint8Array.of(0x80, 2, 0x8c, 3, 97, 10, 98, 0x8c, 1, 99, 0x93, 0x2e);
  await expect(readTorch(openBytes(bytes), 'a file')).rejects.toThrow(/^a file: [^\n]*a\?b\.c[^\n]*$/);
});
