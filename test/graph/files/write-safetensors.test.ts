import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ShapeError } from '../../../src/errors.ts';
import { openSafetensors } from '../../../src/graph/node/open-safetensors.ts';
import { writeSafetensors } from '../../../src/graph/node/write-safetensors.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'safetensors-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('writeSafetensors', () => {
  it('writes aligned tensors that read back unchanged, with the same bytes for any order', async () => {
    const tensors = [
      ['z', { dtype: 'U8', shape: [3], data: Uint8Array.of(1, 2, 3) }],
      ['noise', { dtype: 'F32', shape: [1, 2, 1], data: Float32Array.of(0.5, -2) }],
      ['h', { dtype: 'F16', shape: [], data: Uint16Array.of(0x3c00) }],
      ['i', { dtype: 'I64', shape: [1], data: BigInt64Array.of(-1n) }],
      ['empty', { dtype: 'F32', shape: [0, 7], data: new Float32Array(0) }],
    ] as const;
    const path = join(folder, 'out.safetensors');
    const again = join(folder, 'again.safetensors');
    await writeSafetensors(path, tensors, [['licence', 'MIT "é"']]);
    await writeSafetensors(again, [...tensors].reverse(), [['licence', 'MIT "é"']]);
    const bytes = await readFile(path);
    expect(bytes.equals(await readFile(again))).toBe(true);
    expect(Number(bytes.readBigUInt64LE(0)) % 8).toBe(0);
    const opened = await openSafetensors(path);
    expect(opened.metadata.get('licence')).toBe('MIT "é"');
    for (const [name, { data }] of tensors)
      expect([...(await opened.read(name))]).toEqual([...new Uint8Array(data.buffer)]);
    for (const { dtype, begin } of opened.tensors.values()) expect(begin % (dtype === 'I64' ? 8 : 2)).toBe(0);
    await opened.close();
  });

  it('rejects data that does not match, and leaves no file behind', async () => {
    const before = (await readdir(folder)).sort();
    const bad = [
      [
        ['x', { dtype: 'F32', shape: [2, 2], data: new Float32Array(3) }],
        'tensor "x" of dtype F32 and shape [2, 2]: expected 16 bytes, got 12',
      ],
      [
        ['__metadata__', { dtype: 'U8', shape: [0], data: new Uint8Array(0) }],
        'tensor "__metadata__" has a reserved name',
      ],
      [
        ['x', { dtype: 'U8', shape: [-1], data: new Uint8Array(0) }],
        'tensor "x" has the shape [-1]; expected whole numbers from 0 on',
      ],
    ] as const;
    for (const [tensor, message] of bad) {
      const writing = writeSafetensors(join(folder, 'never.safetensors'), [tensor]);
      await expect(writing).rejects.toThrow(new ShapeError(`writeSafetensors: ${message}`));
    }
    await expect(writeSafetensors(join(folder, 'no', 'x.safetensors'), [])).rejects.toThrow('ENOENT');
    expect((await readdir(folder)).sort()).toEqual(before);
  });
});
