// Tests that many users can share one opened classifier, and that every result equals that of a run without other users.

import { filter, lastValueFrom, map, type Observable, tap, toArray } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { DeviceLostError, ItemError, OutOfMemoryError, UsageError } from '../../src/errors.ts';
import { classifyImages } from '../../src/pipeline/classifying/classify-images.ts';
import { all } from '../../src/pipeline/deciding/all.ts';
import { sequential } from '../../src/pipeline/deciding/sequential.ts';
import { staged } from '../../src/pipeline/deciding/staged.ts';
import { openClassifier } from '../../src/pipeline/node/open-classifier.ts';
import { classify } from '../../src/pipeline/operators/classify.ts';
import { filterPulled, mapPulled, tapPulled } from '../../src/pipeline/operators/pulled.ts';
import { pulled } from '../../src/pipeline/stream/observable.ts';
import type { Classified, ImageItem, ItemFailure } from '../../src/pipeline/types.ts';
import { collect, fakeModel, hash, image, images, turns } from './fake-model.ts';

/** Returns a number in [0, 1) that decides when tests abort; `npm run test:all` tries many seeds. */
const chance = (...keys: readonly number[]): number => hash(...keys, Number(process.env.CHAOS_SEED ?? 0));

const timeless = (result: Classified | ItemFailure) => ({ ...result, seconds: 0 });
const strategies = [
  sequential(),
  sequential({ confidence: 0.9 }),
  all(),
  staged({ nSamples: [4, 24], toKeep: [3, 1] }),
];

/** Returns the results of images 0 to count - 1 in a single run, with every strategy. */
async function alone(count: number) {
  const rows = strategies.map(async (strategy) => {
    const results = await collect(
      classifyImages(images(0, count), async () => fakeModel(), { strategy, order: 'input' }),
    );
    return results.map(timeless);
  });
  return Promise.all(rows);
}

describe('many users of one classifier', () => {
  it('get the results of single runs, with 8 streams, 64 single calls and random aborts at once', async () => {
    const expected = await alone(60);
    const model = fakeModel({ slots: 6, batchSize: 16, beforeBatch: (_, i) => turns(2 * chance(i)) });
    const classifier = await openClassifier(async () => model);
    let checked = 0;
    let aborted = 0;
    const checkResult = (result: Classified | ItemFailure, s: number) => {
      expect(timeless(result)).toEqual(expected[s]![Number(result.path.split(' ')[1])]);
      checked++;
    };
    const streams = Array.from({ length: 8 }, async (_, k) => {
      const s = k % strategies.length;
      const controller = new AbortController();
      if (k >= 5) void turns(30 + 40 * chance(k)).then(() => controller.abort(new Error('enough')));
      const options = { strategy: strategies[s]!, signal: controller.signal };
      try {
        for await (const result of classifier.classifyAll(images(0, 60), options)) checkResult(result, s);
      } catch (error) {
        expect(error).toEqual(new Error('enough'));
        aborted++;
      }
    });
    const singles = Array.from({ length: 64 }, async (_, k) => {
      await turns(60 * chance(k, 1));
      const s = k % strategies.length;
      const controller = new AbortController();
      if (k % 4 === 3) void turns(6 * chance(k, 2)).then(() => controller.abort(new Error('enough')));
      const options = { strategy: strategies[s]!, signal: controller.signal };
      try {
        checkResult(await classifier.classify(image(k % 60), options), s);
      } catch (error) {
        expect(error).toEqual(new Error('enough'));
        aborted++;
      }
    });
    await Promise.all([...streams, ...singles]);
    expect(checked).toBeGreaterThan(5 * 60 + 40);
    expect(aborted).toBeGreaterThan(3);
    // All slots are free again: as many images as slots run at once.
    await collect(classifier.classifyAll(images(0, 20)));
    expect(model.closed).toBe(0);
    await classifier.close();
    expect(model.closed).toBe(1);
  });

  it('share the model if two streams open the same one, and the last one closes it', async () => {
    const [expected] = await alone(20);
    const model = fakeModel();
    const run = () =>
      lastValueFrom(
        pulled(images(0, 20)).pipe(
          classify(async () => model, { order: 'input' }),
          toArray(),
        ),
      );
    for (const results of await Promise.all([run(), run(), run()]))
      expect(results.map(timeless)).toEqual(expected);
    expect(model.closed).toBe(1);
    await expect(run()).rejects.toThrow('openClassifier');
  });

  it('share the model if a classifier and a stream open the same one', async () => {
    const [expected] = await alone(20);
    const model = fakeModel();
    const classifier = await openClassifier(async () => model);
    const [streamed, called] = await Promise.all([
      collect(classifyImages(images(0, 20), async () => model, { order: 'input' })),
      Promise.all(Array.from({ length: 20 }, (_, id) => classifier.classify(image(id)))),
    ]);
    expect([streamed.map(timeless), called.map(timeless)]).toEqual([expected, expected]);
    expect(model.closed).toBe(0);
    await classifier.close();
    expect(model.closed).toBe(1);
  });

  it('may use different seeds: the noise of an image does not depend on the seed of another', async () => {
    const seeds: (readonly [number, bigint | undefined])[] = [];
    const model = fakeModel({
      beforeBatch: ({ noise, seed }) => {
        noise.forEach((index, i) => {
          seeds.push([index, seed?.[i]]);
        });
      },
    });
    const classifier = await openClassifier(async () => ({ ...model, seed: 5n }));
    const [one, two, three] = await Promise.all([
      classifier.classify(image(1), { seed: 7 }),
      classifier.classify(image(1), { seed: 2n ** 40n }),
      classifier.classify(image(1)),
    ]);
    expect([one.seed, two.seed, three.seed]).toEqual([7, 2 ** 40, 5]);
    // A batch whose images have no seeds uses the seed of the model.
    expect(new Set(seeds.map(([, seed]) => seed ?? 5n))).toEqual(new Set([7n, 2n ** 40n, 5n]));
    await classifier.close();
  });

  it('may not use a seed if the noise comes from a file', async () => {
    const classifier = await openClassifier(async () => ({ ...fakeModel(), noisePairing: 'visit' as const }));
    await expect(classifier.classify(image(1), { seed: 1 })).rejects.toThrow(UsageError);
    await classifier.classify(image(1));
    await classifier.close();
  });

  it('get their share of the slots, even if a stream holds all of them', async () => {
    const model = fakeModel({ slots: 4, beforeBatch: () => turns(1) });
    const classifier = await openClassifier(async () => model);
    let streamed = 0;
    const stream = (async () => {
      for await (const _ of classifier.classifyAll(images(0, 200), { strategy: all() })) streamed++;
    })();
    await turns(20);
    await classifier.classify(image(1), { strategy: all() });
    expect(streamed).toBeLessThan(100);
    await stream;
    await classifier.close();
  });

  it('are not blocked by a stream whose results are not consumed', async () => {
    const classifier = await openClassifier(async () => fakeModel({ slots: 2 }));
    const idle = classifier.classifyAll(images(0, 50));
    await idle.next();
    const others = await collect(classifier.classifyAll(images(0, 30)));
    expect(others).toHaveLength(30);
    await idle.return?.();
    await classifier.close();
  });
});

describe('a classifier that fails', () => {
  it('rejects with a code for an image that cannot be classified, and only for this image', async () => {
    const errorOf = (id: number) => (id === 3 ? Number.NaN : 1);
    const classifier = await openClassifier(async () => fakeModel({ errorOf }));
    const outcomes = await Promise.allSettled([1, 3, 5].map((id) => classifier.classify(image(id))));
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect(outcomes[1]).toMatchObject({ reason: { name: 'ItemError', code: 'not-finite' } });
    await expect(classifier.classify('missing.png')).rejects.toThrow(ItemError);
    await classifier.close();
  });

  it('by a lost device opens the model again, and every result equals that of a single run', async () => {
    const [expected] = await alone(40);
    let opened = 0;
    const classifier = await openClassifier(async () => {
      const number = ++opened;
      return fakeModel({
        beforeBatch: (_, i) => {
          if (number < 4 && i === 7) throw new DeviceLostError('gone');
        },
      });
    });
    const results = await Promise.all([
      ...Array.from({ length: 3 }, () => collect(classifier.classifyAll(images(0, 40), { order: 'input' }))),
      ...Array.from({ length: 40 }, async (_, id) => [await classifier.classify(image(id))]),
    ]);
    for (const row of results.slice(0, 3)) expect(row.map(timeless)).toEqual(expected);
    for (const [id, [one]] of results.slice(3).entries()) expect(timeless(one!)).toEqual(expected![id]);
    expect(opened).toBe(4);
    await classifier.close();
  });

  it('by lack of memory halves the batch, as often as needed', async () => {
    const sizes: number[] = [];
    const classifier = await openClassifier(async ({ batchSize } = { batchSize: 16 }) => {
      sizes.push(batchSize);
      return fakeModel({
        batchSize,
        beforeBatch: () => {
          if (batchSize > 4) throw new OutOfMemoryError('full');
        },
      });
    });
    const [a, b] = await Promise.all([
      collect(classifier.classifyAll(images(0, 10))),
      collect(classifier.classifyAll(images(5, 15))),
    ]);
    expect([a.length, b.length, sizes]).toEqual([10, 10, [16, 8, 4]]);
    await classifier.close();
  });

  it('by a device lost twice in a row rejects every call and stream once', async () => {
    const beforeBatch = () => {
      throw new DeviceLostError('gone');
    };
    const classifier = await openClassifier(async () => fakeModel({ beforeBatch }));
    const outcomes = await Promise.allSettled([
      collect(classifier.classifyAll(images(0, 10))),
      classifier.classify(image(1)),
    ]);
    for (const outcome of outcomes)
      expect(outcome).toEqual({ status: 'rejected', reason: new DeviceLostError('gone') });
    await expect(classifier.classify(image(1))).rejects.toThrow('gone');
    await classifier.close();
  });
});

describe('closing', () => {
  it('lets calls in flight finish, rejects new ones, and ends streams', async () => {
    const model = fakeModel({ slots: 2, beforeBatch: () => turns(2) });
    const classifier = await openClassifier(async () => model);
    const stream = collect(classifier.classifyAll(images(0, 1000)));
    const ended = expect(stream).rejects.toThrow('closed');
    await turns(10);
    await classifier.close();
    expect(model.closed).toBe(1);
    await ended;
    await expect(classifier.classify(image(1))).rejects.toThrow(UsageError);
    await classifier.close();
    expect(model.closed).toBe(1);
  });

  it('closes the model with the last of several handles', async () => {
    const model = fakeModel();
    const first = await openClassifier(async () => model);
    const second = first.share();
    await first.close();
    expect((await second.classify(image(1))).path).toBe('image 1');
    expect(model.closed).toBe(0);
    await second.close();
    expect(model.closed).toBe(1);
  });
});

describe('order', () => {
  it("'input' gives results in the order of the source, failures and equal paths included", async () => {
    const classifier = await openClassifier(async () => fakeModel({ slots: 5 }));
    async function* source(): AsyncGenerator<ImageItem | ItemFailure> {
      for (let id = 0; id < 100; id++)
        yield id % 7 === 0
          ? { path: `${id}`, error: { code: 'corrupt', message: '' } }
          : id % 11 === 0
            ? { path: `${id}`, pixels: new Float32Array(1) }
            : { ...image(id), path: `${id % 3}` };
    }
    const results = await collect(classifier.classifyAll(source(), { order: 'input' }));
    const direct = new Map<number, Classified>();
    for (let id = 0; id < 100; id++)
      if (id % 7 && id % 11) direct.set(id, await classifier.classify({ ...image(id), path: `${id % 3}` }));
    expect(results).toHaveLength(100);
    for (const [id, result] of results.entries()) {
      expect(result).not.toHaveProperty('position');
      if ('error' in result) expect(result.path).toBe(`${id}`);
      else expect(timeless(result)).toEqual(timeless(direct.get(id)!));
    }
    await classifier.close();
  });

  it("'input' never runs far ahead of a slow image", async () => {
    const count = { count: 0 };
    let taken = 0;
    let ahead = 0;
    const errorOf = (id: number, candidate: number) => (id === 0 ? candidate * 1e-9 : candidate);
    const classifier = await openClassifier(async () => fakeModel({ slots: 4, errorOf, levels: 200 }));
    for await (const _ of classifier.classifyAll(images(0, 300, count), { order: 'input' })) {
      ahead = Math.max(ahead, count.count - ++taken);
    }
    expect(taken).toBe(300);
    expect(ahead).toBeLessThanOrEqual(4 * 4 + 1);
    await classifier.close();
  });
});

describe('operators in front', () => {
  const front = {
    RxJS: (source$: Observable<ImageItem>) =>
      source$.pipe(
        map((item) => item),
        filter(({ path }) => !path.endsWith('9')),
        tap(() => undefined),
      ),
    pulled: (source$: Observable<ImageItem>) =>
      source$.pipe(
        mapPulled(async (item) => item),
        filterPulled(({ path }) => !path.endsWith('9')),
        tapPulled(async () => undefined),
      ),
  };
  it.each(Object.entries(front))(
    '%s map, filter and tap: any number of images with bounded read-ahead',
    async (_, before) => {
      const count = { count: 0 };
      let taken = 0;
      let ahead = 0;
      const classifier = await openClassifier(async () => fakeModel({ slots: 6 }));
      const results$ = before(pulled(images(0, 4000, count))).pipe(
        classify(classifier, { strategy: sequential({ confidence: 0.5 }) }),
      );
      await new Promise<void>((resolve, reject) => {
        results$.subscribe({
          next: () => {
            taken++;
            ahead = Math.max(ahead, count.count - (taken * 10) / 9);
          },
          error: reject,
          complete: resolve,
        });
      });
      expect([count.count, taken]).toEqual([4000, 3600]);
      expect(ahead).toBeLessThan(60);
      await classifier.close();
    },
  );
});
