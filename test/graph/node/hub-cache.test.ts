import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { folderFiles } from '../../../src/graph/node/folder-files.ts';
import { hubCache, hubId, snapshotOf } from '../../../src/graph/node/hub-cache.ts';
import { modelFolder } from '../../../src/graph/node/model-path.ts';

const A = 'a'.repeat(40);
const B = `b0${'b'.repeat(38)}`;

let home: string;
let repository: string;
const made: string[] = [];

/** Adds a snapshot of one file, as a link to a blob or, as on Windows, as a copy. */
async function snapshot(hash: string, linked: boolean): Promise<string> {
  const folder = join(repository, 'snapshots', hash);
  await mkdir(folder, { recursive: true });
  const file = join(folder, 'model_index.json');
  if (!linked) await writeFile(file, `{"_class_name": "${hash}"}`);
  else {
    await mkdir(join(repository, 'blobs'), { recursive: true });
    await writeFile(join(repository, 'blobs', hash), `{"_class_name": "${hash}"}`);
    await symlink(join('..', '..', 'blobs', hash), file);
  }
  return folder;
}

async function ref(name: string, hash: string): Promise<void> {
  const path = join(repository, 'refs', name);
  await mkdir(join(path, '..'), { recursive: true });
  await writeFile(path, hash);
}

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'hub-cache-'));
  made.push(home);
  repository = join(home, 'hub', 'models--acme--tiny');
  await mkdir(join(repository, 'snapshots'), { recursive: true });
  vi.stubEnv('HF_HUB_CACHE', '');
  vi.stubEnv('HUGGINGFACE_HUB_CACHE', '');
  vi.stubEnv('HF_HOME', home);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  for (const folder of made) await rm(folder, { recursive: true });
});

describe('the cache', () => {
  it.each([
    [{ HF_HUB_CACHE: '/a', HUGGINGFACE_HUB_CACHE: '/b', HF_HOME: '/c' }, '/a'],
    [{ HUGGINGFACE_HUB_CACHE: '/b', HF_HOME: '/c' }, '/b'],
    [{ HF_HOME: '/c', XDG_CACHE_HOME: '/d' }, join('/c', 'hub')],
    [{ XDG_CACHE_HOME: '/d' }, join('/d', 'huggingface', 'hub')],
    [{}, join(homedir(), '.cache', 'huggingface', 'hub')],
    [{ HF_HUB_CACHE: '~/models' }, `${homedir()}/models`],
  ])('is where huggingface_hub has it: %j', (env, expected) => expect(hubCache(env)).toBe(expected));
});

describe('an id', () => {
  it.each([
    ['acme/tiny', 'acme/tiny', undefined],
    ['acme/tiny@v1.0', 'acme/tiny', 'v1.0'],
    ['acme/tiny@refs/pr/1', 'acme/tiny', 'refs/pr/1'],
    ['models--acme--tiny', 'acme/tiny', undefined],
    ['models--acme--tiny@main', 'acme/tiny', 'main'],
    ['models--tiny', 'tiny', undefined],
  ])('%s', (text, id, revision) => expect(hubId(text)).toEqual({ id, revision }));
  it.each(['./acme', '../tiny', '/acme/tiny', 'a/b/c', 'acme/tiny@', 'acme\\tiny', ''])('not %j', (text) =>
    expect(hubId(text)).toBeUndefined(),
  );
});

describe('a model of the cache', () => {
  it.each([
    ['links', true],
    ['copies', false],
  ])('is the snapshot of main, with %s', async (_, linked) => {
    const folder = await snapshot(A, linked);
    await snapshot(B, linked);
    await ref('main', `${A}\n`);
    expect(await modelFolder('acme/tiny')).toBe(folder);
    expect(await modelFolder('models--acme--tiny')).toBe(folder);
    expect(await modelFolder(repository)).toBe(folder);
    const files = folderFiles(folder);
    expect(files.name).toBe('acme/tiny');
    const file = await files.open('model_index.json');
    expect(file.size).toBe(`{"_class_name": "${A}"}`.length);
    await file.close();
  });

  it('is found by branch, by tag with a slash, by hash and by the beginning of a hash', async () => {
    const [a, b] = [await snapshot(A, true), await snapshot(B, true)];
    await ref('main', A);
    await ref('refs/pr/1', B);
    expect(await modelFolder('acme/tiny@main')).toBe(a);
    expect(await modelFolder('acme/tiny@refs/pr/1')).toBe(b);
    expect(await modelFolder(`acme/tiny@${B}`)).toBe(b);
    expect(await modelFolder(`acme/tiny@${B.slice(0, 7)}`)).toBe(b);
  });

  it('without refs is its only snapshot; of several one must be named', async () => {
    const folder = await snapshot(A, true);
    expect(await modelFolder('acme/tiny')).toBe(folder);
    await snapshot(B, true);
    await expect(modelFolder('acme/tiny')).rejects.toThrow(
      `${repository}: it is not clear which revision is meant; the cache has the snapshots ${A}, ${B}; write acme/tiny@aaaaaaaaaa`,
    );
  });

  it.each([
    ['acme/tiny@fp16', ['no revision "fp16"', A, 'hf download acme/tiny --revision fp16']],
    ['acme/tiny@aaaaaa', ['no revision "aaaaaa"', A]],
    ['acme/tiny@../../..', ['expected a branch, a tag or a commit, got the revision "../../.."']],
    ['acme/other', ['no such folder', 'hf download acme/other"']],
    ['acme/other@v2', ['hf download acme/other --revision v2"']],
  ])('%s is refused in a sentence', async (model, parts) => {
    await snapshot(A, true);
    await ref('main', A);
    const message = await modelFolder(model).then(
      () => '',
      (error: Error) => error.message,
    );
    for (const part of parts) expect(message).toContain(part);
    expect(message).not.toContain('\n');
  });

  it('whose snapshot is gone, or that was never downloaded, says how to download it', async () => {
    await ref('main', A);
    await expect(modelFolder('acme/tiny')).rejects.toThrow(
      `its snapshot ${A} is not in the cache; download it with "hf download acme/tiny"`,
    );
    await expect(snapshotOf(join(home, 'hub', 'models--acme--empty'))).rejects.toThrow(
      'no revision "main"; download it with "hf download acme/empty"',
    );
  });

  it('without a model folder is its checkpoint, if there is only one', async () => {
    const folder = await snapshot(A, true);
    await ref('main', A);
    await writeFile(join(folder, 'a.safetensors'), '');
    expect(await modelFolder('acme/tiny')).toBe(folder);
    await rm(join(folder, 'model_index.json'));
    await writeFile(join(folder, 'README.md'), '');
    expect(await modelFolder('acme/tiny')).toBe(join(folder, 'a.safetensors'));
    await writeFile(join(folder, 'b.ckpt'), '');
    await expect(modelFolder('acme/tiny')).rejects.toThrow(
      `got 2 checkpoints; give the path of one of them, such as ${join(folder, 'a.safetensors')}`,
    );
  });

  it('gives way to a path that exists', async () => {
    const folder = await mkdtemp('hub-cache-');
    made.push(folder);
    const id = `${folder}/tiny`;
    const cached = join(home, 'hub', `models--${id.replace('/', '--')}`, 'snapshots', A);
    await mkdir(cached, { recursive: true });
    expect(await modelFolder(id)).toBe(cached);
    await mkdir(id);
    expect(await modelFolder(id)).toBe(id);
  });
});
