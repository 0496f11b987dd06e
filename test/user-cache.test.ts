import { execFile } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { cacheFolder, userCache } from '../src/graph/node/user-cache.ts';
import { temporaryFolder } from './pipeline/image-files.ts';

/** Returns the files below a folder. */
const filesOf = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.json'))
    .map((name) => join(folder, name));

describe('the cache of a user', () => {
  test('returns what was written, by scope, and the last value of a key', async () => {
    const folder = join(temporaryFolder(), 'not', 'there');
    const cache = userCache(folder);
    expect(await cache.read('device 1')).toEqual(new Map());
    await cache.write('device 1', 'a', 'first');
    await cache.write('device 1', 'a', 'second');
    await cache.write('device 1', 'b', { error: 0.5 });
    await cache.write('device 2', 'a', 3);
    const expected = new Map<string, unknown>([
      ['a', 'second'],
      ['b', { error: 0.5 }],
    ]);
    expect(await userCache(folder).read('device 1')).toEqual(expected);
    expect(await userCache(folder).read('device 2')).toEqual(new Map([['a', 3]]));
    expect(await userCache(folder).read('device 3')).toEqual(new Map());
  });

  test('ignores files that are broken, foreign, or of another scope', async () => {
    const folder = temporaryFolder();
    const cache = userCache(folder);
    for (const key of ['good', 'empty', 'cut', 'foreign', 'moved']) await cache.write('device', key, 1);
    const file = (key: string) =>
      filesOf(folder).find((name) => readFileSync(name, 'utf8').includes(`"${key}"`))!;
    writeFileSync(file('moved'), '{"scope":"other device","key":"moved","value":1}');
    writeFileSync(file('foreign'), '["something else"]');
    writeFileSync(file('cut'), readFileSync(file('cut')).subarray(0, 20));
    writeFileSync(file('empty'), '');
    mkdirSync(join(folder, readdirSync(folder)[0]!, 'folder.json'));
    expect(await cache.read('device')).toEqual(new Map([['good', 1]]));
    await cache.write('device', 'cut', 2);
    expect((await cache.read('device')).get('cut')).toBe(2);
  });

  test('is as if it were empty where it cannot be written', async () => {
    const file = join(temporaryFolder(), 'file');
    writeFileSync(file, '');
    const cache = userCache(file);
    await cache.write('device', 'a', 1);
    expect(await cache.read('device')).toEqual(new Map());
  });

  test('loses nothing if processes write at the same time', async () => {
    const folder = temporaryFolder();
    const source = new URL('../src/graph/node/user-cache.ts', import.meta.url).href;
    const program = (own: string) => `
      import(${JSON.stringify(source)}).then(async ({ userCache }) => {
        const cache = userCache(${JSON.stringify(folder)});
        const keys = Array.from({ length: 50 }, (_, i) => 'key ' + i);
        await Promise.all([...keys, ${JSON.stringify(own)}].map((key) => cache.write('device', key, key)));
      });`;
    const run = (own: string) =>
      promisify(execFile)(process.execPath, ['--import', 'tsx', '-e', program(own)]);
    await Promise.all([run('of one'), run('of the other')]);
    const entries = await userCache(folder).read('device');
    expect(entries.size).toBe(52);
    for (const [key, value] of entries) expect(value).toBe(key);
    expect(readdirSync(folder, { recursive: true, encoding: 'utf8' }).join()).not.toContain('.tmp');
  });

  test('lies where the system keeps caches', () => {
    const at = (platform: NodeJS.Platform, env = {}) => cacheFolder(env, platform);
    expect(at('linux', { XDG_CACHE_HOME: '/big/cache' })).toBe('/big/cache/diffclass-stream');
    expect(at('linux', { XDG_CACHE_HOME: 'relative' })).toBe(join(homedir(), '.cache/diffclass-stream'));
    expect(at('darwin')).toBe(join(homedir(), 'Library/Caches/diffclass-stream'));
    expect(at('win32', { LOCALAPPDATA: '/local' })).toBe(join('/local', 'diffclass-stream'));
  });
});
