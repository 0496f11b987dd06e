// Tests `optimal`, which turns a labelled set into a model.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readModel } from '../../src/graph/node/open-model.ts';
import { openSafetensors } from '../../src/graph/node/open-safetensors.ts';
import { encodePng } from '../../src/pipeline/node/png.ts';
import { cli } from './captured-cli.ts';
import { greyPng, temporaryFolder, write } from './image-files.ts';

const setOf = (files: Record<string, Buffer | string>) => {
  const root = temporaryFolder();
  write(
    root,
    Object.fromEntries(
      Object.entries(files).map(([name, content]) => [
        name,
        typeof content === 'string' ? content : Uint8Array.from(content),
      ]),
    ),
  );
  return { set: root, out: join(root, '.out', 'model') };
};

const run = (set: string, out: string, ...options: string[]) => cli(['optimal', set, out, ...options]);

describe('optimal', () => {
  test('turns class folders into a model folder that opens', async () => {
    const colour = encodePng({
      width: 3,
      height: 2,
      channels: 3,
      data: Uint8Array.from({ length: 18 }, (_, i) => i),
    });
    const { set, out } = setOf({
      'dog/a.png': colour,
      'cat/b.png': colour,
      'cat/c.png': greyPng(9),
      'cat/bad.png': 'no',
    });
    const { status, out: printed, err } = await run(set, out, '--format', 'json');
    expect(err).toContain('bad.png');
    expect(status).toBe(1);
    expect(JSON.parse(printed)).toEqual({ model: out, images: 3, classes: 2, shape: [3, 2, 3], failed: 1 });
    const model = await readModel(out);
    expect(model).toMatchObject({
      labels: ['cat', 'dog'],
      inputShape: [3, 2, 3],
      residual: 'eps',
      temperature: 1,
    });
    expect(model.levels).toHaveLength(25);
    const file = await openSafetensors(join(out, 'images.safetensors'));
    const [images, labels] = [await file.read('images'), await file.read('labels')];
    await file.close();
    expect([...new Int32Array(labels.buffer, labels.byteOffset, 3)]).toEqual([0, 0, 1]);
    expect([...images.subarray(0, 6)]).toEqual([0, 3, 6, 9, 12, 15]); // the red plane
    expect([...images.subarray(18, 36)]).toEqual(Array(18).fill(9));
    expect(readFileSync(join(out, 'config.json'), 'utf8')).toContain('"1": "dog"');
  });

  test('takes numbers as classes, with names from --labels', async () => {
    const { set, out } = setOf({ '10/a.png': greyPng(1), '9/b.png': greyPng(2), '0/c.png': greyPng(0) });
    expect((await run(set, out)).out).toContain('3 images of 3 classes, 1 x 2 x 2');
    expect((await readModel(out)).labels).toEqual(['0', '9', '10']);
    const again = await run(set, out);
    expect([again.status, again.out]).toEqual([2, '']);
    expect(again.err).toMatch(/is a model folder already/);

    const named = setOf({ '1/a.png': greyPng(1), '0/b.png': greyPng(2) });
    expect((await run(named.set, named.out, '--labels', 'no,yes')).status).toBe(0);
    expect((await readModel(named.out)).labels).toEqual(['no', 'yes']);
  });

  test('rejects a folder that cannot be created before it reads any image', async () => {
    const { set } = setOf({ 'a/a.png': 'not an image', 'b/b.png': greyPng(2) });
    write(set, { file: '' });
    const { status, err } = await run(set, join(set, 'file/out'));
    expect(status).toBe(2);
    expect(err).toMatch(/^diffclass-stream: OUT: .*\n$/);
  });

  test.each([
    ['a class too few', ['--labels', 'a'], /the label "b" is none of --labels/],
    ['a class too many', ['--labels', 'a,b,c'], /has no image of the class "c"/],
  ])('%s: status 2, and no folder', async (_, options, message) => {
    const { set, out } = setOf({ 'a/a.png': greyPng(1), 'b/b.png': greyPng(2) });
    const { status, err } = await run(set, out, ...options);
    expect(status).toBe(2);
    expect(err).toMatch(message);
    expect(existsSync(out)).toBe(false);
  });
});
