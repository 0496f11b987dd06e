// Purification as a stream: the same bytes in any batch, failures, lost devices, unsubscription; and as a command.

import { existsSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { firstValueFrom, of } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { openSafetensors } from '../../src/graph/files/safetensors.ts';
import { writeSafetensors } from '../../src/graph/files/safetensors-write.ts';
import type { OpenModelOptions } from '../../src/graph/openmodel.ts';
import { DeviceLostError, ModelError, OutOfMemoryError } from '../../src/kernels/errors.ts';
import { outputNames, pngName } from '../../src/pipeline/command/outputnames.ts';
import { toModelInput } from '../../src/pipeline/images/pixels.ts';
import { decodePng, encodePng } from '../../src/pipeline/images/png.ts';
import { purify } from '../../src/pipeline/operators/purify.ts';
import { METHODS, type PurifyingOptions } from '../../src/pipeline/purifying/methods.ts';
import { purificationLevels } from '../../src/pipeline/purifying/plan.ts';
import { pulled } from '../../src/pipeline/stream/observable.ts';
import { type Purified, type PurifyOptions, purifyImages } from '../../src/pipeline/stream/purify.ts';
import { type ImageItem, type ItemFailure, isFailure } from '../../src/pipeline/types.ts';
import { cli, linesOf } from './capture.ts';
import { collect, gauss, hash } from './fake.ts';
import {
  type Gaussian,
  type GaussianOptions,
  gaussianModel,
  timestepSigmas,
  timesteps,
} from './fakedenoiser.ts';
import { fakeFolder, SUMMARY } from './fakefolder.ts';
import { greyPng, temporaryFolder, write } from './imagefiles.ts';

const item = (key: number): ImageItem => ({
  path: `image ${key}`,
  pixels: Float32Array.from({ length: 12 }, (_, i) => 2 * hash(key, i) - 1),
});

async function* items(count: number, pulledCount = { count: 0 }): AsyncGenerator<ImageItem> {
  for (let key = 0; key < count; key++) {
    pulledCount.count++;
    yield item(key);
  }
}

const DISCRETE = { ...SUMMARY, timestepSigmas };

/** A model at the levels of a purification. */
const opened = (options: PurifyingOptions, more: Partial<GaussianOptions> = {}): Gaussian =>
  gaussianModel({
    ...timesteps(...purificationLevels(options)(DISCRETE).map(({ t }) => t!)),
    seed: options.seed ?? 0,
    ...more,
  });

const byPath = (results: readonly (Purified | ItemFailure)[]) =>
  new Map(
    results.map((result) => [result.path, isFailure(result) ? result.error.code : result.pixels.join()]),
  );

const options = (method: PurifyingOptions['method']): PurifyingOptions =>
  method === 'diffpure' ? { method, tStar: 10 } : { method };

describe('purifyImages', () => {
  test.each(METHODS)('%s: the same bytes in any batch, among any others', async (method) => {
    const asked = options(method);
    const wanted = byPath(await collect(purifyImages(items(9), async () => opened(asked), asked)));
    expect(wanted.size).toBe(9);
    for (const gradientBatchSize of [1, 3, 7])
      for (const concurrency of [1, 4, undefined]) {
        const how = { ...asked, concurrency };
        const open = async () => opened(asked, { gradientBatchSize, slots: gradientBatchSize + 1 });
        expect(byPath(await collect(purifyImages(items(9), open, how)))).toEqual(wanted);
      }
    const alone = await collect(purifyImages(of5(), async () => opened(asked), asked));
    expect(byPath(alone).get('image 5')).toBe(wanted.get('image 5'));
    const other = byPath(
      await collect(purifyImages(of5(), async () => opened({ ...asked, seed: 1 }), { ...asked, seed: 1 })),
    );
    expect(other.get('image 5')).not.toBe(wanted.get('image 5'));
  });

  async function* of5() {
    yield item(5);
  }

  test('many images fill the batches', async () => {
    const model = opened({ method: 'lm-momentum' }, { gradientBatchSize: 4, slots: 8 });
    await collect(purifyImages(items(32), async () => model, { method: 'lm-momentum' }));
    expect(model.batches.reduce((sum, { rows }) => sum + rows, 0)).toBe(32 * 5);
    expect(model.batches.filter(({ rows }) => rows === 4).length).toBeGreaterThan(0.9 * model.batches.length);
    expect(model.closed).toBe(1);
  });

  test('what was done to an image is told', async () => {
    const [result] = await collect(
      purifyImages(items(1), async () => opened({ method: 'lm-momentum' }), { method: 'lm-momentum' }),
    );
    const { pixels, purification } = result as Purified;
    const moved = pixels.map((value, i) => (value - item(0).pixels[i]!) / 2);
    expect(purification.linf).toBeCloseTo(Math.max(...moved.map(Math.abs)), 7);
    expect(purification.linf).toBeCloseTo(8 / 255, 6);
    expect(purification.l2).toBeCloseTo(Math.hypot(...moved), 6);
    expect(purification.evaluations).toBe(5);
    expect(purification.model).toBe('gaussian');
  });

  test('failures pass, a wrong shape and what is no number become one', async () => {
    const source = async function* (): AsyncGenerator<ImageItem | ItemFailure> {
      yield { path: 'bad', error: { code: 'empty', message: '' } };
      yield { path: 'large', pixels: new Float32Array(99) };
      yield { path: 'nan', pixels: new Float32Array(12).fill(Number.NaN) };
      yield item(1);
    };
    const progress: number[] = [];
    const results = await collect(
      purifyImages(source(), async () => opened({ method: 'lm-adam' }), {
        method: 'lm-adam',
        onProgress: ({ images, failures }) => progress.push(10 * images + failures),
      }),
    );
    expect(
      [...byPath(results)].map(([path, code]) => [path, code.split(',').length > 1 ? 'fine' : code]).sort(),
    ).toEqual([
      ['bad', 'empty'],
      ['image 1', 'fine'],
      ['large', 'wrong-shape'],
      ['nan', 'not-finite'],
    ]);
    expect(progress.at(-1)).toBe(43);
  });

  test('a lost device is replaced, half the batch is tried after one out of memory, two losses end it', async () => {
    const asked = { method: 'lm-adam' } as const;
    const wanted = byPath(await collect(purifyImages(items(9), async () => opened(asked), asked)));
    const models: Gaussian[] = [];
    const tried: unknown[] = [];
    const open = async (want?: { readonly batchSize: number }) => {
      tried.push(want);
      let batch = 0;
      const fault = [new DeviceLostError('gone'), new OutOfMemoryError('full'), undefined][models.length];
      const model = opened(asked, {
        gradientBatchSize: want?.batchSize ?? 4,
        beforeBatch: () => {
          if (batch++ === 3 && fault) throw fault;
        },
      });
      models.push(model);
      return model;
    };
    expect(byPath(await collect(purifyImages(items(9), open, asked)))).toEqual(wanted);
    expect(tried).toEqual([undefined, undefined, { batchSize: 2 }]);
    expect(models.map(({ closed }) => closed)).toEqual([1, 1, 1]);

    let openings = 0;
    const lost = new DeviceLostError('gone');
    const always = async () => {
      openings++;
      return opened(asked, { beforeBatch: () => Promise.reject(lost) });
    };
    await expect(collect(purifyImages(items(9), always, asked))).rejects.toBe(lost);
    expect(openings).toBe(2);
  });

  test('a model of latents, and one opened for classes, are refused and closed', async () => {
    const { differentiable: _, ...latent } = opened({ method: 'lm-adam' });
    const without: typeof latent = latent;
    await expect(collect(purifyImages(items(1), async () => without, { method: 'lm-adam' }))).rejects.toThrow(
      /gradients.*latents/,
    );
    expect(without.closed).toBe(1);
    const classes = { ...opened({ method: 'lm-adam' }), candidates: [{ label: 'a', classidx: 0 }] };
    await expect(collect(purifyImages(items(1), async () => classes, { method: 'lm-adam' }))).rejects.toThrow(
      /unconditional/,
    );
  });

  test('a signal stops it at once, and closes the model', async () => {
    const stop = new AbortController();
    const model = opened({ method: 'lm-adam' }, { beforeBatch: () => new Promise(() => undefined) });
    const running = collect(
      purifyImages(items(9), async () => model, { method: 'lm-adam', signal: stop.signal }),
    );
    setTimeout(() => stop.abort(new Error('enough')), 20);
    await expect(running).rejects.toThrow('enough');
    expect(model.closed).toBe(1);
  });
});

describe('the operator', () => {
  test('unsubscribing stops batches and reading, and closes the model', async () => {
    const model = opened({ method: 'diffpure', tStar: 50 });
    const count = { count: 0 };
    const purifying: PurifyOptions = { method: 'diffpure', tStar: 50, concurrency: 2 };
    await firstValueFrom(pulled(items(1000, count)).pipe(purify(async () => model, purifying)));
    expect(model.closed).toBe(1);
    const { length } = model.batches;
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(model.batches).toHaveLength(length);
    expect(count.count).toBeLessThan(6);
  });

  test('keeps what else an item carries, on a plain observable too', async () => {
    const source = of({ ...item(3), key: 'kept' });
    const open = async () => opened({ method: 'lm-residual' });
    const result = await firstValueFrom(source.pipe(purify(open, { method: 'lm-residual' })));
    expect(result).toMatchObject({ path: 'image 3', key: 'kept' });
  });
});

test('names: beneath their roots, told apart by the folders above, and then by a number', () => {
  const nameOf = outputNames();
  expect(nameOf('a/x.png', 'a')).toBe('x.png');
  expect(nameOf('a/b/x.png', 'a')).toBe('b/x.png');
  expect(nameOf('c/x.png', 'c')).toBe('c/x.png');
  expect(nameOf('./c/x.png', 'c')).toMatch(/^[^.].*\/c\/x\.png$/);
  expect(nameOf('p/y.jpg', 'p')).toBe('y.jpg');
  expect(nameOf('p/y.png', 'p')).toBe('y.png');
  expect(nameOf('p/y.jpg.png', 'p')).toBe('p/y.jpg.png');
  const last = [1, 2, 3, 4, 5, 6, 7, 8, 9].map(() => outputNames()('/x.png', '/')).at(-1);
  expect(last).toBe('x.png');
  const again = outputNames();
  expect([again('/x.png', '/'), again('/x.png', '/'), again('/x.png', '/')]).toEqual([
    'x.png',
    'x 2.png',
    'x 3.png',
  ]);
  expect(['a.png', 'a.PNG', 'a.jpg', 'b/a'].map(pngName)).toEqual(['a.png', 'a.PNG', 'a.jpg.png', 'b/a.png']);
});

describe('the command', () => {
  /** Opens the Gaussian for no class, and the fake for classes. */
  const open =
    (seen: OpenModelOptions[] = []) =>
    async (folder: string, how: OpenModelOptions) => {
      seen.push(how);
      if (!how.unconditional) return fakeFolder()(folder, how);
      const levels = how.levels!(DISCRETE);
      return gaussianModel({
        ...timesteps(...levels.map(({ t }) => t!)),
        inputShape: [1, 2, 2],
        seed: Number(how.seed),
        ...(how.noiseFile ? { noise: await noiseOf(how.noiseFile) } : {}),
        ...(how.batchSize ? { gradientBatchSize: how.batchSize } : {}),
      });
    };
  const noiseOf = async (path: string) => {
    const file = await openSafetensors(path);
    const noise = await file.readF32('noise');
    await file.close();
    return noise;
  };
  const random = (key: number) =>
    encodePng({
      width: 2,
      height: 2,
      channels: 1,
      data: Uint8Array.from({ length: 4 }, (_, i) => 255 * hash(key, i)),
    });

  test('PNGs, tensors and lines; folders kept; one bad file is a line', async () => {
    const folder = temporaryFolder();
    const images = join(folder, 'in');
    write(images, { 'a.png': random(1), 'deep/b.png': random(2), 'bad.png': 'hello' });
    const [out, tensors] = [join(folder, 'out'), join(folder, 't.safetensors')];
    const {
      status,
      out: text,
      err,
    } = await cli(['purify', images, '--method', 'lm-momentum', '--out', out, '--tensors', tensors], open());
    expect(status).toBe(1);
    expect(err).toMatch(/^diffclass-stream: 2 images purified in/);
    const lines = new Map(linesOf(text).map((line) => [relative(images, line.path), line]));
    expect([...lines.keys()].sort()).toEqual(['a.png', 'bad.png', 'deep/b.png']);
    expect(lines.get('bad.png').error.code).toBe('not-an-image');
    expect(Object.keys(lines.get('a.png'))).toEqual([
      'path',
      'image',
      'linf',
      'l2',
      'evaluations',
      'seconds',
      'method',
      'seed',
      'model',
    ]);
    const file = await openSafetensors(tensors);
    expect([...file.tensors.keys()].sort()).toEqual(['a.png', 'deep/b.png']);
    for (const [name, key] of [
      ['a.png', 1],
      ['deep/b.png', 2],
    ] as const) {
      const values = await file.readF32(name);
      expect(file.tensors.get(name)!.shape).toEqual([1, 2, 2]);
      const before = toModelInput(await decodePng(random(key), 4));
      const moved = values.map((value, i) => Math.abs(value - before[i]!) / 2);
      expect(Math.max(...moved)).toBeLessThanOrEqual(8 / 255 + 1e-6);
      expect(Math.max(...moved)).toBeCloseTo(lines.get(name).linf, 6);
      const png = await decodePng(readFileSync(join(out, name)), 4);
      toModelInput(png).forEach(
        (value, i) => void expect(Math.abs(value - values[i]!)).toBeLessThan(1 / 255 + 1e-6),
      );
    }
    await file.close();
  });

  test('the same files whatever the batch and the concurrency; another seed, others', async () => {
    const folder = temporaryFolder();
    const images = join(folder, 'in');
    write(images, Object.fromEntries(Array.from({ length: 7 }, (_, key) => [`${key}.png`, random(key)])));
    const run = async (name: string, ...more: string[]) => {
      const tensors = join(folder, name);
      const argv = ['purify', images, '-q', '--method', 'lm-adam', '--out', join(folder, 'out')];
      expect((await cli([...argv, '--tensors', tensors, ...more], open())).status).toBe(0);
      return readFileSync(tensors).toString('base64');
    };
    const wanted = await run('one');
    expect(await run('two', '--batch', '1', '--concurrency', '1')).toBe(wanted);
    expect(await run('three', '--batch', '3')).toBe(wanted);
    expect(await run('four', '--seed', '1')).not.toBe(wanted);
  });

  test('options reach the purification: step i has sigma i and noise i', async () => {
    const folder = temporaryFolder();
    write(folder, { 'in/a.png': random(1) });
    const values = Float32Array.from({ length: 12 }, (_, i) => gauss(i, 3));
    const noise = join(folder, 'noise.safetensors');
    await writeSafetensors(noise, [['noise', { dtype: 'F32', shape: [3, 1, 2, 2], data: values }]]);
    const seen: OpenModelOptions[] = [];
    const argv = ['--sigmas', '0.5,0.3,0.5', '--noise', noise, '--eps', '12.75/255', '--norm', 'l2'];
    const tensors = join(folder, 't.safetensors');
    const { status } = await cli(
      ['purify', join(folder, 'in/a.png'), '-q', '--method', 'lm-momentum', '--step-size', '0.07'].concat(
        argv,
        ['--out', join(folder, 'out'), '--tensors', tensors],
      ),
      open(seen),
    );
    expect(status).toBe(0);
    expect(seen[0]).toMatchObject({ unconditional: true, distance: 'l2', noiseFile: noise, seed: 0 });
    const [result] = await collect(
      purifyImages(
        (async function* () {
          yield { path: 'a', pixels: toModelInput(await decodePng(random(1), 4)) };
        })(),
        async () =>
          gaussianModel({
            ...timesteps(...[0.5, 0.3].map((sigma) => timestepSigmas.findIndex((own) => own >= sigma))),
            inputShape: [1, 2, 2],
            noise: values,
          }),
        {
          method: 'lm-momentum',
          norm: 'l2',
          eps: 0.05,
          stepSize: 0.07,
          sigmas: [0.5, 0.3, 0.5],
          noise: values,
        },
      ),
    );
    const file = await openSafetensors(tensors);
    expect([...(await file.readF32('a.png'))]).toEqual([...(result as Purified).pixels]);
    await file.close();
  });

  test('a run taken up again does what is left', async () => {
    const folder = temporaryFolder();
    const images = join(folder, 'in');
    write(images, { 'a.png': random(1), 'b.png': random(2) });
    const [out, lines] = [join(folder, 'out'), join(folder, 'lines.jsonl')];
    const argv = ['purify', '--method', 'lm-adam', '--out', out, '--output', lines, '--resume', '-q'];
    expect((await cli([...argv, join(images, 'a.png')], open())).status).toBe(0);
    expect((await cli([...argv, images], open())).status).toBe(0);
    expect(linesOf(readFileSync(lines, 'utf8')).map(({ path }) => relative(images, path))).toEqual([
      'a.png',
      'b.png',
    ]);
  });

  test('what lies beneath --out is no input, and inputs are not written over', async () => {
    const folder = temporaryFolder();
    write(folder, { 'a.png': random(1), 'out/old.png': random(2) });
    const inside = await cli(
      ['purify', folder, '-q', '--method', 'lm-adam', '--out', join(folder, 'out')],
      open(),
    );
    expect(inside.status).toBe(0);
    expect(linesOf(inside.out).map(({ path }) => relative(folder, path))).toEqual(['a.png']);
    const over = await cli(['purify', folder, '--method', 'lm-adam', '--out', folder], open());
    expect(over.status).toBe(2);
    expect(over.err).toMatch(/would be written over/);
    expect(readFileSync(join(folder, 'a.png')).equals(random(1))).toBe(true);
  });

  test.each<[argv: string, sentence: RegExp]>([
    ['a.png --out o', /purify wants --method/],
    ['a.png --method lm-adam', /purify wants --out FOLDER/],
    ['--method lm-adam --out o', /no INPUT/],
    [
      'a.png --method best --out o',
      /--method: wanted lm-adam, lm-momentum, lm-residual, diffpure, got "best"/,
    ],
    ['a.png --method lm-adam --out o --eps 8', /--eps: pixels are in \[0, 1\].*8\/255, got 8/],
    ['a.png --method lm-adam --out o --eps 8/0', /--eps: wanted a number above 0/],
    ['a.png --method lm-adam --out o --sigmas 0.4,,0.5', /--sigmas: wanted numbers above 0/],
    ['a.png --method lm-adam --out o --sigmas 0.4 --steps 3', /--sigmas: 1 sigmas for 3 steps/],
    ['a.png --method lm-adam --out o --t-star 100', /--t-star belongs to diffpure/],
    ['a.png --method diffpure --out o --t-star cifar9', /--t-star: wanted an integer.*cifar10-linf/],
    [
      'a.png --method lm-adam --out o --noise none.safetensors',
      /none\.safetensors: the noise cannot be read/,
    ],
    ['a.png --method lm-adam --out o --resume', /--resume wants --output FILE/],
    ['a.png --method lm-adam --out o --resume -o l --tensors t', /exclude each other/],
  ])('%s: status 2', async (argv, sentence) => {
    const { status, out, err } = await cli(['purify', ...argv.split(' ')], open());
    expect(err).toMatch(sentence);
    expect(out).toBe('');
    expect(status).toBe(2);
    expect(existsSync('o')).toBe(false);
  });

  test('classify --purify puts it in front, and says so', async () => {
    const folder = temporaryFolder();
    write(folder, { 'a.png': greyPng(3), 'b.png': greyPng(14) });
    const seen: OpenModelOptions[] = [];
    const argv = [folder, '-q', '--purify', 'lm-momentum', '--purify-eps', '0.1/255', '--purify-steps', '2'];
    const { status, out } = await cli(argv, open(seen));
    expect(status).toBe(0);
    expect(seen.map(({ unconditional }) => unconditional ?? false)).toEqual([false, true]);
    expect(
      linesOf(out)
        .map(({ path, classidx, purify: how }) => [relative(folder, path), classidx, how])
        .sort(),
    ).toEqual([
      ['a.png', 3, 'lm-momentum'],
      ['b.png', 4, 'lm-momentum'],
    ]);
    const csv = await cli([...argv, '--format', 'csv'], open());
    expect(csv.out.split('\n')[0]).toMatch(/,purify$/);
    expect(csv.out.split('\n')[1]).toMatch(/,lm-momentum$/);
    const without = await cli([folder, '--purify-steps', '2'], open());
    expect(without).toMatchObject({ status: 2, out: '' });
    expect(without.err).toMatch(/--purify-steps wants --purify METHOD/);
  });

  test('a model that cannot be opened for no class: its status, and nothing is written', async () => {
    const folder = temporaryFolder();
    write(folder, { 'in/a.png': greyPng(1) });
    const refuse = async () => {
      throw new ModelError('fake: has no prediction without a class');
    };
    const out = join(folder, 'out');
    const { status, err } = await cli(
      ['purify', join(folder, 'in'), '--method', 'lm-adam', '--out', out],
      refuse,
    );
    expect(status).toBe(3);
    expect(err).toBe('diffclass-stream: fake: has no prediction without a class\n');
    expect(existsSync(out)).toBe(false);
  });
});
