// Tests purification as a stream: equal bytes in any batch, failures, lost devices, unsubscription.

import { firstValueFrom, of } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { DeviceLostError, OutOfMemoryError, UnsupportedError } from '../../src/errors.ts';
import { purify } from '../../src/pipeline/operators/purify.ts';
import { METHODS, type PurifyingOptions, purificationLevels } from '../../src/pipeline/purifying/methods.ts';
import { pulled } from '../../src/pipeline/stream/observable.ts';
import { type Purified, type PurifyOptions, purifyImages } from '../../src/pipeline/stream/purify-images.ts';
import { type ImageItem, type ItemFailure, isFailure } from '../../src/pipeline/types.ts';
import {
  type Gaussian,
  type GaussianOptions,
  gaussianModel,
  timestepSigmas,
  timesteps,
} from './fake-denoiser.ts';
import { SUMMARY } from './fake-folder.ts';
import { collect, hash, turns } from './fake-model.ts';

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

/** Opens a model at the levels of a purification. */
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
  test.each(METHODS)('%s: gives the same bytes in any batch, with any other images', async (method) => {
    const settings = options(method);
    const expected = byPath(await collect(purifyImages(items(9), async () => opened(settings), settings)));
    expect(expected.size).toBe(9);
    for (const gradientBatchSize of [1, 3, 7])
      for (const concurrency of [1, 4, undefined]) {
        const how = { ...settings, concurrency };
        const open = async () => opened(settings, { gradientBatchSize, slots: gradientBatchSize + 1 });
        expect(byPath(await collect(purifyImages(items(9), open, how)))).toEqual(expected);
      }
    const alone = await collect(purifyImages(of5(), async () => opened(settings), settings));
    expect(byPath(alone).get('image 5')).toBe(expected.get('image 5'));
    const other = byPath(
      await collect(
        purifyImages(of5(), async () => opened({ ...settings, seed: 1 }), { ...settings, seed: 1 }),
      ),
    );
    expect(other.get('image 5')).not.toBe(expected.get('image 5'));
  });

  async function* of5() {
    yield item(5);
  }

  test('fills its batches with many images', async () => {
    const model = opened({ method: 'lm-momentum' }, { gradientBatchSize: 4, slots: 8 });
    await collect(purifyImages(items(32), async () => model, { method: 'lm-momentum' }));
    expect(model.batches.reduce((sum, { rows }) => sum + rows, 0)).toBe(32 * 5);
    expect(model.batches.filter(({ rows }) => rows === 4).length).toBeGreaterThan(0.9 * model.batches.length);
    expect(model.closed).toBe(1);
  });

  test('reports what it did to an image', async () => {
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

  test('passes failures on; a wrong shape, NaN and infinity become failures', async () => {
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

  test('replaces a lost device, halves the batch if out of memory, and ends after two losses in a row', async () => {
    const settings = { method: 'lm-adam' } as const;
    const expected = byPath(await collect(purifyImages(items(9), async () => opened(settings), settings)));
    const models: Gaussian[] = [];
    const tried: unknown[] = [];
    const open = async (request?: { readonly batchSize: number }) => {
      tried.push(request);
      let batch = 0;
      const fault = [new DeviceLostError('gone'), new OutOfMemoryError('full'), undefined][models.length];
      const model = opened(settings, {
        gradientBatchSize: request?.batchSize ?? 4,
        beforeBatch: () => {
          if (batch++ === 3 && fault) throw fault;
        },
      });
      models.push(model);
      return model;
    };
    expect(byPath(await collect(purifyImages(items(9), open, settings)))).toEqual(expected);
    expect(tried).toEqual([undefined, undefined, { batchSize: 2 }]);
    expect(models.map(({ closed }) => closed)).toEqual([1, 1, 1]);

    let openings = 0;
    const lost = new DeviceLostError('gone');
    const always = async () => {
      openings++;
      return opened(settings, { beforeBatch: () => Promise.reject(lost) });
    };
    await expect(collect(purifyImages(items(9), always, settings))).rejects.toBe(lost);
    expect(openings).toBe(2);
  });

  test('rejects and closes a latent model, and one opened for classes', async () => {
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

  test('ends and closes the model if a reopened one has no gradients', async () => {
    const settings = options('lm-adam');
    const lost = opened(settings, { beforeBatch: () => Promise.reject(new DeviceLostError('gone')) });
    const { differentiable: _, ...latent } = opened(settings);
    const without: typeof latent = latent;
    const models = [lost, without];
    await expect(collect(purifyImages(items(9), async () => models.shift()!, settings))).rejects.toThrow(
      UnsupportedError,
    );
    expect([lost.closed, without.closed]).toEqual([1, 1]);
  });

  test('stops at once on a signal, and closes the model', async () => {
    const stop = new AbortController();
    const model = opened({ method: 'lm-adam' }, { beforeBatch: () => new Promise(() => undefined) });
    const running = collect(
      purifyImages(items(9), async () => model, { method: 'lm-adam', signal: stop.signal }),
    );
    void turns(20).then(() => stop.abort(new Error('enough')));
    await expect(running).rejects.toThrow('enough');
    expect(model.closed).toBe(1);
  });
});

describe('the operator', () => {
  test('stops batches and reading on unsubscription, and closes the model', async () => {
    const model = opened({ method: 'diffpure', tStar: 50 });
    const count = { count: 0 };
    const purifying: PurifyOptions = { method: 'diffpure', tStar: 50, concurrency: 2 };
    await firstValueFrom(pulled(items(1000, count)).pipe(purify(async () => model, purifying)));
    expect(model.closed).toBe(1);
    const { length } = model.batches;
    await turns(20);
    expect(model.batches).toHaveLength(length);
    expect(count.count).toBeLessThan(6);
  });

  test('keeps other fields of an item, on a plain observable too', async () => {
    const source = of({ ...item(3), key: 'kept' });
    const open = async () => opened({ method: 'lm-residual' });
    const result = await firstValueFrom(source.pipe(purify(open, { method: 'lm-residual' })));
    expect(result).toMatchObject({ path: 'image 3', key: 'kept' });
  });
});
