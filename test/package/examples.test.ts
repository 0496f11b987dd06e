// Runs every example against the packed package, as its users do.

import { spawn } from 'node:child_process';
import { copyFileSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { compiled, newConsumer, ROOT, runIn } from './consumer.ts';

const consumer = newConsumer('@types/node', 'undici-types', 'hono', '@hono/node-server');
const EXAMPLES = readdirSync(join(ROOT, 'examples')).filter((name) => name.endsWith('.mjs'));
for (const name of EXAMPLES) copyFileSync(join(ROOT, 'examples', name), join(consumer.folder, name));
afterAll(() => consumer.remove());

const node = async (...args: string[]) => {
  const ended = await runIn(consumer.folder, process.execPath, args);
  expect(ended).toMatchObject({ status: 0 });
  return ended.out;
};
const lines = (text: string) =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
const photos = readdirSync(join(consumer.folder, 'photos'));
const some = photos.slice(0, 5).map((name) => join('photos', name));

describe('examples', () => {
  it('compile', async () => {
    const options = { lib: ['ES2023'], types: ['node'], checkJs: true, allowJs: true, skipLibCheck: true };
    expect(await compiled(consumer.folder, options, EXAMPLES)).toBe('');
  });

  it('sort-folder copies every image to the folder of its label', async () => {
    await node('sort-folder.mjs', 'photos', 'sorted');
    const sorted = readdirSync(join(consumer.folder, 'sorted'), { recursive: true }).map(String);
    expect(sorted.filter((name) => name.endsWith('.png'))).toHaveLength(photos.length);
    expect(sorted).toContain(join('Ankle boot', '0000-ankle-boot.png'));
  });

  it('custom-strategy drops half of the candidates after every level', async () => {
    const results = lines(await node('custom-strategy.mjs', ...some));
    expect(results.map(({ path }) => path)).toEqual(some);
    for (const { evaluations, decided } of results)
      expect([evaluations, decided]).toEqual([10 + 5 + 3 + 2, true]);
  });

  it('custom-operator prints the mean error of every level of the grid', async () => {
    const curve = lines(await node('custom-operator.mjs', ...some));
    expect(curve).toHaveLength(20);
    for (const { error, evaluations } of curve) {
      expect(error).toBeGreaterThan(0);
      expect(evaluations).toBe(50);
    }
  });

  it('custom-sink writes every result to the file', async () => {
    await node('custom-sink.mjs', 'photos', 'results.jsonl.gz');
    const text = gunzipSync(readFileSync(join(consumer.folder, 'results.jsonl.gz'))).toString();
    expect(lines(text)).toHaveLength(photos.length);
  });

  it('worker-thread gets results and failures from the worker', async () => {
    const results = lines(await node('worker-thread.mjs', ...some, 'missing.png'));
    expect(results).toHaveLength(6);
    expect(results.find(({ path }) => path === 'missing.png').message).toContain('no such file');
  });

  it('http-server answers 16 simultaneous requests, each with the result of a single run', async () => {
    const server = spawn(process.execPath, ['http-server.mjs', '0'], {
      cwd: consumer.folder,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      const address = await new Promise<string>((resolve, reject) => {
        server.on('exit', () => reject(new Error('the server ended')));
        server.stdout.on('data', (chunk) => {
          const [, url] = /listening on (\S+)/.exec(String(chunk)) ?? [];
          if (url) resolve(url);
        });
      });
      const ask = async (name: string) => {
        const body = readFileSync(join(consumer.folder, 'photos', name));
        const response = await fetch(`${address}/classify?name=${name}`, { method: 'POST', body });
        const { seconds: _, ...result } = (await response.json()) as Record<string, unknown>;
        return result;
      };
      const sixteen = photos.slice(0, 16);
      const together = await Promise.all(sixteen.map(ask));
      for (const [i, name] of sixteen.entries()) expect(together[i]).toEqual(await ask(name));
      const refused = await fetch(`${address}/classify`, { method: 'POST', body: 'no image' });
      expect(refused.status).toBe(422);
      const ended = new Promise((resolve) => server.on('exit', resolve));
      server.kill('SIGTERM');
      await ended;
    } finally {
      server.kill('SIGKILL');
    }
  });
});
