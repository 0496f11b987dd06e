import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import { openSafetensors } from '../../../src/graph/node/open-safetensors.ts';
import { writeSafetensors } from '../../../src/graph/node/write-safetensors.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'safetensors-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('shards', () => {
  const one = { dtype: 'F32', shape: [1], data: Float32Array.of(1) } as const;
  const two = { dtype: 'F32', shape: [1], data: Float32Array.of(2) } as const;
  const index = 'model.safetensors.index.json';

  async function withIndex(value: unknown): Promise<string> {
    const path = join(folder, index);
    await writeFile(path, typeof value === 'string' ? value : JSON.stringify(value));
    return path;
  }
  beforeAll(async () => {
    await writeSafetensors(join(folder, 'm-1.safetensors'), [['a', one]], [['format', 'pt']]);
    await writeSafetensors(join(folder, 'm-2.safetensors'), [['b', two]]);
  });

  it('are read through their index', async () => {
    const path = await withIndex({
      metadata: { total_size: 8 },
      weight_map: { b: 'm-2.safetensors', a: 'm-1.safetensors' },
    });
    const opened = await openSafetensors(path);
    expect(opened.path).toBe(path);
    expect([...opened.tensors.keys()].sort()).toEqual(['a', 'b']);
    expect([...(await opened.readF32('a')), ...(await opened.readF32('b'))]).toEqual([1, 2]);
    expect([...(await opened.readF16('b'))]).toEqual([0x4000]);
    expect(opened.metadata.get('format')).toBe('pt');
    await expect(opened.read('c')).rejects.toThrow(`${path}: tensor "c" is missing`);
    await opened.close();
  });

  it('may be links, as in caches of downloads', async () => {
    await symlink(join(folder, 'm-1.safetensors'), join(folder, 'linked.safetensors'));
    const opened = await openSafetensors(await withIndex({ weight_map: { a: 'linked.safetensors' } }));
    expect([...(await opened.readF32('a'))]).toEqual([1]);
    await opened.close();
  });

  it('may not contain a tensor that the index does not list', async () => {
    await writeSafetensors(join(folder, 'm-4.safetensors'), [
      ['a', one],
      ['extra', two],
    ]);
    const path = await withIndex({ weight_map: { a: 'm-4.safetensors' } });
    await expect(openSafetensors(path)).rejects.toThrow(
      /m-4\.safetensors: tensor "extra" is not expected here by/,
    );
  });

  it.each<[what: string, index: unknown, message: RegExp]>([
    ['broken JSON', '{', /index\.json: not valid JSON/],
    ['no weight_map', {}, /index\.json: weight_map: /],
    ['a number for a file', { weight_map: { a: 1 } }, /index\.json: weight_map\.a: /],
    [
      'a file in the parent folder',
      { weight_map: { a: '../m-1.safetensors' } },
      /the shard "\.\.\/m-1\.safetensors" is not a \.safetensors or \.bin file inside the folder/,
    ],
    [
      'a file in the parent folder, after a valid one',
      { weight_map: { a: 'x/../../m-1.safetensors' } },
      /is not a \.safetensors or \.bin file inside/,
    ],
    [
      'an absolute file',
      { weight_map: { a: '/m-1.safetensors' } },
      /is not a \.safetensors or \.bin file inside/,
    ],
    ['a drive', { weight_map: { a: 'C:m-1.safetensors' } }, /is not a \.safetensors or \.bin file inside/],
    [
      'backslashes',
      { weight_map: { a: '..\\m-1.safetensors' } },
      /is not a \.safetensors or \.bin file inside/,
    ],
    [
      'another kind of file',
      { weight_map: { a: 'm-1.pt' } },
      /the shard "m-1\.pt" is not a \.safetensors or \.bin file/,
    ],
    ['a missing shard', { weight_map: { a: 'm-3.safetensors' } }, /m-3\.safetensors: no such file/],
    [
      'a missing tensor',
      { weight_map: { a: 'm-2.safetensors' } },
      /m-2\.safetensors: tensor "a" is missing, although .*index\.json lists it here/,
    ],
    [
      '__proto__',
      '{"weight_map":{"__proto__":"m-1.safetensors"}}',
      /tensor "__proto__" has a name that is not accepted/,
    ],
  ])('%s', async (_what, value, message) => {
    const path = await withIndex(value);
    const error = await openSafetensors(path).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(ModelError);
    expect((error as ModelError).message).toMatch(message);
  });
});
