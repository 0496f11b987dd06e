import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import { openSafetensors } from '../../../src/graph/node/open-safetensors.ts';
import { writeSafetensors } from '../../../src/graph/node/write-safetensors.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'safetensors-'));
});
afterAll(() => rm(folder, { recursive: true }));

const python = fileURLToPath(new URL('../../golden/safetensors-python.safetensors', import.meta.url));

/** Returns the bytes of a file with a header text and a number of bytes of data. */
function file(header: string | Uint8Array, dataBytes: number, length?: bigint): Uint8Array {
  const json = typeof header === 'string' ? new TextEncoder().encode(header) : header;
  const out = new Uint8Array(8 + json.length + dataBytes);
  new DataView(out.buffer).setBigUint64(0, length ?? BigInt(json.length), true);
  out.set(json, 8);
  return out;
}

async function refusal(bytes: Uint8Array, name = 'bad.safetensors'): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  const error = await openSafetensors(path).then(
    async (opened) => opened.close(),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(ModelError);
  const { message } = error as ModelError;
  expect(message.startsWith(`${path}: `)).toBe(true);
  expect(message).not.toMatch(/\n/);
  return message.slice(path.length + 2);
}

describe('openSafetensors', () => {
  it("reads what the format's own library wrote", async () => {
    const opened = await openSafetensors(python);
    expect([...opened.metadata].sort()).toEqual([
      ['format', 'pt'],
      ['made with', 'Python'],
    ]);
    expect(opened.tensors.size).toBe(11);
    expect(opened.tensors.get('i64')).toMatchObject({ dtype: 'I64', shape: [3], bytes: 24 });
    const read = async (name: string): Promise<number[]> => [...(await opened.readF32(name))];
    expect(await read('f32')).toEqual([1.5, Math.fround(-0.1), Math.fround(3e38), 2 ** -149]);
    expect(await read('f16')).toEqual([0, -0, 1, -2.5, 65504, 2 ** -24, 2 ** -14, Infinity]);
    expect(await read('bf16')).toEqual([0, 1, -2.5, 3.00405527047391e38, 2 ** -133, -Infinity]);
    expect(await read('scalar')).toEqual([7.25]);
    expect(await read('empty')).toEqual([]);
    expect(await read('naïve "name"\n/é')).toEqual([4]);
    expect(opened.tensors.get('scalar')!.shape).toEqual([]);
    expect([...(await opened.read('u8'))]).toEqual([1, 2, 255]);
    expect([...(await opened.readF16('f16'))].slice(2, 5)).toEqual([0x3c00, 0xc100, 0x7bff]);
    expect([...(await opened.readF16('bf16.small'))]).toEqual([0x2e68, 0xc200]);
    await opened.close();
  });

  it('reads into a given array, which must have the right length', async () => {
    const opened = await openSafetensors(python);
    const memory = new Float32Array(20).fill(9);
    const part = memory.subarray(3, 11);
    expect(await opened.readF32('f16', part)).toBe(part);
    expect([...memory.subarray(2, 6)]).toEqual([9, 0, -0, 1]);
    expect(memory[11]).toBe(9);
    const bytes = new Uint8Array(3);
    expect(await opened.read('u8', bytes)).toBe(bytes);
    await expect(opened.read('u8', new Uint8Array(4))).rejects.toThrow(
      'tensor "u8": expected an array of length 3, got one of 4',
    );
    await opened.close();
  });

  it('rejects conversions that are inexact or not of floats, and missing tensors', async () => {
    const opened = await openSafetensors(python);
    await expect(opened.readF32('i64')).rejects.toThrow('tensor "i64": expected F32, F16 or BF16, got I64');
    await expect(opened.readF16('f64')).rejects.toThrow('tensor "f64": expected F32, F16 or BF16, got F64');
    await expect(opened.readF16('f32')).rejects.toThrow(
      /tensor "f32" holds 3.*e\+38 at 2, beyond ±65504 of f16/,
    );
    await expect(opened.readF16('bf16')).rejects.toThrow(ModelError);
    await expect(opened.read('none')).rejects.toThrow(`${python}: tensor "none" is missing`);
    await opened.close();
  });

  it('converts tensors longer than a chunk', async () => {
    const path = join(folder, 'long.safetensors');
    const data = Float32Array.from({ length: (1 << 20) + 5 }, (_, i) => (i % 2000) / 8);
    await writeSafetensors(path, [['x', { dtype: 'F32', shape: [data.length], data }]]);
    const opened = await openSafetensors(path);
    const half = await opened.readF16('x');
    expect(half.every((h, i) => h === (data[i] === 0 ? 0 : halfOf(data[i]!)))).toBe(true);
    await opened.close();
  });

  it('throws if the file has become shorter', async () => {
    const path = join(folder, 'shrunk.safetensors');
    await writeSafetensors(path, [['x', { dtype: 'F32', shape: [4], data: new Float32Array(4) }]]);
    const opened = await openSafetensors(path);
    await truncate(path, 70);
    await expect(opened.readF32('x')).rejects.toThrow(/tensor "x": the file ends after 70 bytes/);
    await opened.close();
  });
});

/** Returns the bits of a positive number that f16 represents exactly. */
function halfOf(value: number): number {
  const exponent = Math.floor(Math.log2(value));
  return ((exponent + 15) << 10) | ((value / 2 ** exponent - 1) * 1024);
}

describe('hostile files', () => {
  const entry = (name: string, dtype: string, shape: string, begin: number, end: number): string =>
    `"${name}":{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`;

  it.each<[what: string, bytes: Uint8Array, message: string | RegExp]>([
    ['an empty file', new Uint8Array(0), 'expected at least 8 bytes of a safetensors file, got 0'],
    [
      'a huge header',
      file('{}', 0, 100_000_001n),
      /^expected a header of at most 100000000 bytes, got 100000001/,
    ],
    [
      'a header length of 2^64 - 1',
      file('{}', 0, 2n ** 64n - 1n),
      /^expected a header of at most 100000000 bytes, got 18446744073709551615/,
    ],
    [
      'a header beyond the file',
      file('{}', 0, 3n),
      'a header of 3 bytes does not fit in a file of 10 bytes (cut off?)',
    ],
    ['no JSON object', file('[]', 0), /^the header does not begin with '{'/],
    ['an empty header', file('', 0), /^the header does not begin with '{'/],
    ['broken JSON', file('{"a":', 0), /^not valid JSON \(/],
    [
      'not UTF-8',
      file(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d), 0),
      'the JSON is not valid UTF-8',
    ],
    [
      'a repeated tensor',
      file(`{${entry('a', 'U8', '[1]', 0, 1)},${entry('\\u0061', 'U8', '[1]', 1, 2)}}`, 2),
      'one object holds the key "a" twice',
    ],
    [
      'a repeated field',
      file('{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', 1),
      'one object holds the key "dtype" twice',
    ],
    [
      '__proto__',
      file(`{${entry('__proto__', 'U8', '[1]', 0, 1)}}`, 1),
      'tensor "__proto__" has a name that is not accepted',
    ],
    ['no entry', file('{"a":7}', 0), 'tensor "a" is not an object with dtype, shape and data_offsets'],
    [
      'an unknown field',
      file('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"strides":[1]}}', 1),
      'tensor "a" has an unknown field "strides"',
    ],
    [
      'an unknown dtype',
      file(`{${entry('a', 'F128', '[1]', 0, 16)}}`, 16),
      'tensor "a" has an unknown dtype "F128"',
    ],
    [
      'an inherited dtype',
      file(`{${entry('a', 'toString', '[1]', 0, 1)}}`, 1),
      'tensor "a" has an unknown dtype "toString"',
    ],
    [
      'no dtype',
      file('{"a":{"shape":[1],"data_offsets":[0,1]}}', 1),
      'tensor "a" has an unknown dtype undefined',
    ],
    [
      'a negative size',
      file(`{${entry('a', 'U8', '[-1,-1]', 0, 1)}}`, 1),
      'tensor "a" has shape [-1,-1]; expected whole numbers from 0 on',
    ],
    [
      'a fraction',
      file(`{${entry('a', 'U8', '[1.5]', 0, 1)}}`, 1),
      'tensor "a" has shape [1.5]; expected whole numbers from 0 on',
    ],
    [
      'a size as text',
      file(`{${entry('a', 'U8', '["1"]', 0, 1)}}`, 1),
      'tensor "a" has shape ["1"]; expected whole numbers from 0 on',
    ],
    [
      'a shape that is an object',
      file(`{${entry('a', 'U8', '{"0":1}', 0, 1)}}`, 1),
      'tensor "a" has shape {"0":1}; expected whole numbers from 0 on',
    ],
    [
      'an overflowing shape',
      file(`{${entry('a', 'U8', '[4294967296,4294967296,0]', 0, 0)}}`, 0),
      /^tensor "a" has shape .*more elements than can be counted$/,
    ],
    [
      'too many dimensions',
      file(`{${entry('a', 'U8', `[${'1,'.repeat(64)}1]`, 0, 1)}}`, 1),
      'tensor "a" has 65 dimensions; expected at most 64',
    ],
    [
      'deep nesting',
      file(`{"a":${'['.repeat(1_000_000)}${']'.repeat(1_000_000)}}`, 0),
      'the JSON is nested more than 100 deep',
    ],
    [
      'a very long name',
      file(`{"${'x'.repeat(20_000_000)}":1}`, 0),
      /^tensor "x{115}\.\.\." is not an object with dtype, shape and data_offsets$/,
    ],
    [
      'too many bits',
      file(`{${entry('a', 'F32', '[9007199254740991]', 0, 4)}}`, 4),
      /^tensor "a" of dtype F32 .* not a whole number of bytes$/,
    ],
    [
      'half a byte',
      file(`{${entry('a', 'F4', '[3]', 0, 1)}}`, 1),
      /^tensor "a" of dtype F4 .* not a whole number of bytes$/,
    ],
    [
      'one offset',
      file('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}}', 1),
      'tensor "a" has data_offsets [0]; expected [begin, end]',
    ],
    [
      'a negative offset',
      file(`{${entry('a', 'U8', '[1]', -1, 0)}}`, 1),
      'tensor "a" has data_offsets [-1,0]; expected [begin, end]',
    ],
    [
      'offsets in the wrong order',
      file(`{${entry('a', 'U8', '[1]', 1, 0)}}`, 1),
      'tensor "a" has data_offsets [1, 0], outside the 1 bytes of data in the file',
    ],
    [
      'offsets outside the file',
      file(`{${entry('a', 'U8', '[9]', 0, 9)}}`, 8),
      'tensor "a" has data_offsets [0, 9], outside the 8 bytes of data in the file',
    ],
    [
      'a size that does not match',
      file(`{${entry('a', 'F32', '[2]', 0, 4)}}`, 4),
      'tensor "a" of dtype F32 and shape [2]: expected 8 bytes, got 4',
    ],
    [
      'an overlap',
      file(`{${entry('a', 'U8', '[4]', 0, 4)},${entry('b', 'U8', '[4]', 2, 6)}}`, 6),
      'tensor "b" overlaps the one before it by 2 bytes',
    ],
    [
      'the same bytes twice',
      file(`{${entry('a', 'U8', '[4]', 0, 4)},${entry('b', 'U8', '[4]', 0, 4)}}`, 4),
      'tensor "b" overlaps the one before it by 4 bytes',
    ],
    [
      'a hole',
      file(`{${entry('a', 'U8', '[1]', 0, 1)},${entry('b', 'U8', '[1]', 3, 4)}}`, 4),
      'tensor "b" has 2 bytes before it that belong to no tensor',
    ],
    [
      'trailing bytes',
      file(`{${entry('a', 'U8', '[1]', 0, 1)}}`, 5),
      '4 bytes after the last tensor belong to no tensor',
    ],
    [
      'metadata that is no object',
      file('{"__metadata__":[]}', 0),
      '__metadata__ is not an object of strings',
    ],
    [
      'metadata that is no text',
      file('{"__metadata__":{"a":1}}', 0),
      '__metadata__ "a": expected a string, got 1',
    ],
  ])('%s', async (_what, bytes, message) => {
    const actual = await refusal(bytes);
    if (typeof message === 'string') expect(actual).toBe(message);
    else expect(actual).toMatch(message);
  });

  it('rejects a missing file and a folder', async () => {
    await expect(openSafetensors(join(folder, 'none.safetensors'))).rejects.toThrow(
      /none\.safetensors: no such file$/,
    );
    await expect(openSafetensors(folder)).rejects.toThrow(ModelError);
  });

  it('after random changes of length and header either throw a ModelError or can still be read', async () => {
    const good = new Uint8Array(await readFile(python));
    const headerEnd = 8 + Number(new DataView(good.buffer).getBigUint64(0, true));
    let state = 12345;
    const random = (n: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * n);
    };
    const path = join(folder, 'fuzz.safetensors');
    let refused = 0;
    for (let round = 0; round < 600; round++) {
      const bytes = good.slice();
      for (let flips = 1 + random(3); flips > 0; flips--) {
        const at = random(10) === 0 ? random(8) : 8 + random(headerEnd - 8);
        bytes[at] =
          random(2) === 0 ? bytes[at]! ^ (1 << random(8)) : '0123456789[]{},:"-e.'.charCodeAt(random(20));
      }
      await writeFile(path, random(20) === 0 ? bytes.subarray(0, random(bytes.length)) : bytes);
      try {
        const opened = await openSafetensors(path);
        for (const [name, { bytes: size }] of opened.tensors)
          expect(await opened.read(name)).toHaveLength(size);
        await opened.close();
      } catch (error) {
        expect(error).toBeInstanceOf(ModelError);
        expect((error as Error).message.startsWith(`${path}: `)).toBe(true);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(200);
  }, 60_000);
});

describe('what is often found in place of weights', () => {
  const text = (value: string): Uint8Array => new TextEncoder().encode(value);
  it.each([
    ['version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3438167540\n', 'is a Git LFS pointer'],
    ['<!DOCTYPE html>\n<html lang="en">', 'is a page of a web site'],
    ['\n <html>', 'is a page of a web site'],
    ['<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', 'is a page of a web site'],
  ])('%j', async (content, message) => {
    expect(await refusal(text(content))).toMatch(new RegExp(`^${message}`));
  });
});
