import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ShapeError } from '../../../src/errors.ts';
import { readWhole } from '../../../src/graph/files/files.ts';
import { openTensorFile } from '../../../src/graph/files/safetensors.ts';
import { jsonFile, openBytes, withVirtualFiles } from '../../../src/graph/files/virtual-files.ts';
import { type VirtualTensor, virtualSafetensors } from '../../../src/graph/files/virtual-safetensors.ts';
import { folderFiles } from '../../../src/graph/node/folder-files.ts';
import { writeSafetensors } from '../../../src/graph/node/write-safetensors.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'virtual-'));
});
afterAll(() => rm(folder, { recursive: true }));

const values = Float32Array.from({ length: 24 }, (_, i) => i / 7);
const halves = Uint16Array.of(0x3c00, 0x4000, 0x4200);
const data = [
  ['b.weight', { dtype: 'F16', shape: [3], data: halves }],
  ['a.weight', { dtype: 'F32', shape: [2, 3, 4], data: values }],
  ['empty', { dtype: 'F32', shape: [0, 5], data: new Float32Array() }],
] as const;

const virtual = (
  bytes: Uint8Array,
  dtype: VirtualTensor['dtype'],
  shape: readonly number[],
): VirtualTensor => ({
  dtype,
  shape,
  read: async (from, into) => into.set(bytes.subarray(from, from + into.length)),
});
const tensors = data.map(
  ([name, { dtype, shape, data: own }]) => [name, virtual(new Uint8Array(own.buffer), dtype, shape)] as const,
);

describe('a virtual safetensors file', () => {
  it('has the bytes of a written file, in reads of any place and length', async () => {
    const path = join(folder, 'written.safetensors');
    await writeSafetensors(path, data, [['format', 'pt']]);
    const written = new Uint8Array(await readFile(path));
    const file = virtualSafetensors(tensors, new Map([['format', 'pt']]));
    expect(file.size).toBe(written.length);
    for (const length of [1, 7, 64, written.length])
      for (let at = 0; at < written.length + 9; at += length) {
        const into = new Uint8Array(length);
        const read = await file.read(at, into);
        expect(read).toBe(Math.max(0, Math.min(length, written.length - at)));
        expect(into.subarray(0, read)).toEqual(written.subarray(at, at + read));
      }
  });

  it('closes what its tensors are read from', async () => {
    let closed = 0;
    await virtualSafetensors(tensors, new Map(), async () => void closed++).close();
    expect(closed).toBe(1);
  });

  it('refuses two tensors of one name', () => {
    expect(() => virtualSafetensors([...tensors, tensors[0]!])).toThrow(ShapeError);
  });
});

describe('virtual files of a model', () => {
  const files = () =>
    withVirtualFiles(
      folderFiles(folder),
      new Map([
        ['unet/config.json', jsonFile('model.ckpt (unet)', { sample_size: 8 })],
        [
          'unet/weights.safetensors',
          { description: 'model.ckpt', open: async () => virtualSafetensors(tensors) },
        ],
        [
          'written.safetensors',
          { description: 'other', open: async () => openBytes(Uint8Array.of(1, 2, 3)) },
        ],
      ]),
    );

  it('are listed with those of the folder, and in folders of their own', async () => {
    expect([...(await files().list(''))!].sort()).toEqual(['unet', 'written.safetensors']);
    expect([...(await files().list('unet'))!].sort()).toEqual(['config.json', 'weights.safetensors']);
    expect(await files().list('vae')).toBeUndefined();
  });

  it('are read instead of those of the folder', async () => {
    expect(await readWhole(files(), 'written.safetensors')).toEqual(Uint8Array.of(1, 2, 3));
    expect(new TextDecoder().decode(await readWhole(files(), 'unet/config.json'))).toBe('{"sample_size":8}');
    const file = await openTensorFile(files(), 'unet/weights.safetensors');
    expect(await file.readF32('a.weight')).toEqual(values);
    expect(await file.readF32('b.weight')).toEqual(Float32Array.of(1, 2, 3));
    await file.close();
  });

  it('have names of their own in messages', () => {
    expect(files().describe('unet/config.json')).toBe('model.ckpt (unet)');
    expect(files().describe('vae/config.json')).toBe(join(folder, 'vae/config.json'));
  });
});
