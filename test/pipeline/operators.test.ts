import {
  EMPTY,
  from,
  lastValueFrom,
  map,
  NEVER,
  type Observable,
  of,
  pipe,
  take,
  throwError,
  toArray,
} from 'rxjs';
import { TestScheduler } from 'rxjs/testing';
import { describe, expect, it } from 'vitest';
import { DeviceLostError } from '../../src/errors.ts';
import { classifyImages } from '../../src/pipeline/classifying/classify-images.ts';
import { all } from '../../src/pipeline/deciding/all.ts';
import { staged } from '../../src/pipeline/deciding/staged.ts';
import { openClassifier } from '../../src/pipeline/node/open-classifier.ts';
import { aggregate } from '../../src/pipeline/operators/aggregate.ts';
import { classify } from '../../src/pipeline/operators/classify.ts';
import { eliminate } from '../../src/pipeline/operators/eliminate.ts';
import { encode } from '../../src/pipeline/operators/encode.ts';
import { errors } from '../../src/pipeline/operators/errors.ts';
import { fanOut } from '../../src/pipeline/operators/fan-out.ts';
import { verdict } from '../../src/pipeline/operators/verdict.ts';
import { pulled, streamOperator } from '../../src/pipeline/stream/observable.ts';
import type { Classified, ImageItem, ItemFailure } from '../../src/pipeline/types.ts';
import { collect, fakeModel, image, images, noisyErrors, turns } from './fake-model.ts';

const values = <T>(source: Observable<T>): Promise<T[]> => lastValueFrom(source.pipe(toArray()));

const byPath = (results: readonly (Classified | ItemFailure)[]) =>
  results
    .map((result) => ({ ...result, seconds: 0 }))
    .sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));

const scheduler = () => new TestScheduler((actual, expected) => expect(actual).toEqual(expected));

describe('pulled', () => {
  it('emits the values of the iterable, and completes', async () => {
    expect((await values(pulled(images(0, 3)))).map(({ path }) => path)).toEqual([
      'image 0',
      'image 1',
      'image 2',
    ]);
  });

  it('reads nothing before subscription and nothing after unsubscription', async () => {
    const count = { count: 0 };
    const source = pulled(images(0, 100, count));
    expect(count.count).toBe(0);
    await values(source.pipe(take(3)));
    await turns(5);
    expect(count.count).toBe(3);
  });

  it('starts again for every subscription if given a function', async () => {
    const source = pulled(() => images(0, 2));
    expect(await values(source)).toEqual(await values(source));
  });

  it('emits an error of the iterable', async () => {
    const source = pulled(async function* () {
      yield 1;
      throw new Error('torn');
    });
    const seen: unknown[] = [];
    await new Promise<void>((resolve) => {
      source.subscribe({
        next: (value) => seen.push(value),
        error: (error: unknown) => {
          seen.push(error);
          resolve();
        },
      });
    });
    expect(seen).toEqual([1, new Error('torn')]);
  });
});

describe('streamOperator', () => {
  it('composes any number of operators without a warning of Node about listeners', async () => {
    const warnings: Error[] = [];
    const record = (warning: Error) => warnings.push(warning);
    process.on('warning', record);
    const add = streamOperator(async function* (source: AsyncIterable<number>) {
      for await (const value of source) {
        await turns(1);
        yield value + 1;
      }
    });
    const chain = Array.from({ length: 20 }).reduce<Observable<number>>(
      (source) => source.pipe(add),
      of(0, 100),
    );
    expect(await values(chain)).toEqual([20, 120]);
    await turns(1);
    process.off('warning', record);
    expect(warnings).toEqual([]);
  });

  const same = <T>(queue?: number) =>
    streamOperator(async function* (source: AsyncIterable<T>) {
      for await (const value of source) yield value;
    }, queue);

  it('chains pulls: the source is at most one item ahead, for any number of stages', async () => {
    const count = { count: 0 };
    let taken = 0;
    const slow = streamOperator(async function* (source: AsyncIterable<ImageItem>) {
      for await (const value of source) {
        await new Promise(setImmediate);
        taken++;
        expect(count.count - taken).toBeLessThanOrEqual(1);
        yield value;
      }
    });
    expect(await values(pulled(images(0, 50, count)).pipe(same(), same(), slow, same()))).toHaveLength(50);
  });

  it('subscribes to a plain observable on subscription, and unsubscribes on unsubscription', () => {
    scheduler().run(({ hot, expectSubscriptions }) => {
      const source = hot('--a--b--c--|');
      const unsubscribed = '   -----!';
      const subscription = source.pipe(same()).subscribe();
      hot(unsubscribed.trim().replace('!', 'x')).subscribe(() => subscription.unsubscribe());
      expectSubscriptions(source.subscriptions).toBe('^----!');
    });
  });

  it('stays subscribed to a plain observable until it completes or fails', () => {
    scheduler().run(({ cold, expectSubscriptions }) => {
      const completes = cold('-a-b-|');
      const fails = cold('    -a-#', {}, new Error('no more'));
      completes.pipe(same()).subscribe();
      fails.pipe(same()).subscribe({ error: () => {} });
      expectSubscriptions(completes.subscriptions).toBe('^----!');
      expectSubscriptions(fails.subscriptions).toBe('^--!');
    });
  });

  it('emits the values, the completion and the error of a plain observable', async () => {
    expect(await values(of(1, 2, 3).pipe(same()))).toEqual([1, 2, 3]);
    expect(await values(EMPTY.pipe(same()))).toEqual([]);
    await expect(values(throwError(() => new Error('torn')).pipe(same()))).rejects.toThrow('torn');
  });

  it('fails and unsubscribes if a plain observable pushes more than the queue holds', async () => {
    let emitted = 0;
    const endless = from(
      (function* () {
        for (;;) yield emitted++;
      })(),
    );
    await expect(values(endless.pipe(same(10)))).rejects.toThrow('expected at most 10 items to wait');
    expect(emitted).toBeLessThanOrEqual(12);
  });

  it('treats the source as a plain observable after another operator', async () => {
    const doubled = pulled(images(0, 5)).pipe(
      map(({ path }) => path),
      same(),
    );
    expect(await values(doubled)).toHaveLength(5);
  });
});

describe('classify', () => {
  it('equals classifyImages, on a pulled source and on a plain one', async () => {
    const expected = byPath(await collect(classifyImages(images(0, 12), async () => fakeModel())));
    expect(expected).toHaveLength(12);
    const openModel = async () => fakeModel();
    expect(byPath(await values(pulled(images(0, 12)).pipe(classify(openModel))))).toEqual(expected);
    const items = Array.from({ length: 12 }, (_, id) => image(id));
    expect(byPath(await values(from(items).pipe(classify(openModel))))).toEqual(expected);
  });

  it('reads no further ahead than the images in flight', async () => {
    const count = { count: 0 };
    let taken = 0;
    let ahead = 0;
    const results = pulled(images(0, 300, count)).pipe(classify(async () => fakeModel({ slots: 6 })));
    await new Promise<void>((resolve, reject) => {
      results.subscribe({
        next: () => {
          ahead = Math.max(ahead, count.count - ++taken);
        },
        error: reject,
        complete: resolve,
      });
    });
    expect(taken).toBe(300);
    expect(ahead).toBeLessThanOrEqual(7);
  });

  it('stops at once on unsubscription: no further batch or image, and the model is closed', async () => {
    const count = { count: 0 };
    const model = fakeModel({ beforeBatch: () => turns(5) });
    const subscription = pulled(images(0, 1000, count))
      .pipe(classify(async () => model))
      .subscribe();
    await turns(30);
    const batches = model.batches.length;
    const { count: pulls } = count;
    expect(batches).toBeGreaterThan(0);
    subscription.unsubscribe();
    expect(model.closed).toBe(1);
    await turns(30);
    expect([model.batches.length, count.count, model.closed]).toEqual([batches, pulls, 1]);
  });

  it('stops on unsubscription even if the device never answers', async () => {
    const model = fakeModel({ beforeBatch: () => new Promise(() => {}) });
    const subscription = NEVER.pipe(classify(async () => model)).subscribe();
    const other = from([image(1)])
      .pipe(classify(async () => model))
      .subscribe();
    await turns(5);
    subscription.unsubscribe();
    expect(model.closed).toBe(0);
    other.unsubscribe();
    expect(model.closed).toBe(1);
  });

  it('unsubscribes from a plain source in the frame of its own unsubscription', () => {
    scheduler().run(({ hot, expectSubscriptions }) => {
      const source = hot<ImageItem>('-a--b--c--', { a: image(1), b: image(2), c: image(3) });
      const subscription = source.pipe(classify(async () => fakeModel())).subscribe();
      hot('-----x').subscribe(() => subscription.unsubscribe());
      expectSubscriptions(source.subscriptions).toBe('^----!');
    });
  });

  it('ends once with an error of the device, and unsubscribes from the source', async () => {
    const beforeBatch = () => {
      throw new DeviceLostError('gone');
    };
    const seen: unknown[] = [];
    const source = scheduler().createHotObservable<ImageItem>('-');
    await new Promise<void>((resolve) => {
      source.pipe(classify(async () => fakeModel({ beforeBatch }))).subscribe({
        next: (value) => seen.push(value),
        complete: () => seen.push('complete'),
        error: (error: unknown) => {
          seen.push(error);
          resolve();
        },
      });
      source.next(image(1));
      source.next(image(2));
    });
    await turns(5);
    expect(seen).toEqual([new DeviceLostError('gone')]);
    expect(source.subscriptions.map(({ unsubscribedFrame }) => unsubscribedFrame)).toEqual([0]);
  });

  it('ends with the reason of a signal', async () => {
    const controller = new AbortController();
    const model = fakeModel({ beforeBatch: () => turns(5) });
    const results = values(
      pulled(images(0, 1000)).pipe(classify(async () => model, { signal: controller.signal })),
    );
    void turns(20).then(() => controller.abort(new Error('enough')));
    await expect(results).rejects.toThrow('enough');
    expect(model.closed).toBe(1);
  });
});

describe('the operators of which classify consists', () => {
  it('encode, fanOut, errors, aggregate and verdict are the exhaustive classifier', async () => {
    const model = fakeModel({ slots: 5 });
    const classifier = await openClassifier(async () => model);
    const results = await values(
      pulled(images(0, 30)).pipe(encode(classifier), fanOut(), errors(classifier), aggregate(), verdict()),
    );
    await classifier.close();
    const expected = await collect(
      classifyImages(images(0, 30), async () => fakeModel(), { strategy: all() }),
    );
    expect(byPath(results)).toEqual(byPath(expected));
    expect(model.mostWaiting).toBe(2);
  });

  it('run a staged schedule round by round', async () => {
    const strategy = staged({ nSamples: [4, 24], toKeep: [3, 1] });
    const classifier = await openClassifier(async () => fakeModel());
    const round = pipe(eliminate(strategy), fanOut(), errors(classifier), aggregate());
    const results = await values(
      pulled(images(0, 20)).pipe(encode(classifier), round, round, eliminate(strategy), verdict()),
    );
    await classifier.close();
    const expected = await collect(classifyImages(images(0, 20), async () => fakeModel(), { strategy }));
    expect(byPath(results)).toEqual(byPath(expected));
  });

  it('give an undecided verdict before the strategy has finished', async () => {
    const classifier = await openClassifier(async () => fakeModel());
    const strategy = staged({ nSamples: [4, 24], toKeep: [3, 1] });
    const results = await values(
      pulled(images(0, 3)).pipe(
        encode(classifier),
        eliminate(strategy),
        fanOut(),
        errors(classifier),
        aggregate(),
        verdict({ topK: 2 }),
      ),
    );
    await classifier.close();
    for (const result of results)
      expect(result).toMatchObject({
        decided: false,
        evaluations: 40,
        top: [{ evaluations: 4 }, { evaluations: 4 }],
      });
  });

  it('emit failures of images as values, and free their slots', async () => {
    const errorOf = (id: number, candidate: number, level: number) =>
      id % 4 === 0 && level === 7 ? Number.NaN : noisyErrors(10)(id, candidate, level, 0);
    const model = fakeModel({ slots: 2, errorOf });
    const classifier = await openClassifier(async () => model);
    const small: ImageItem = { path: 'small', pixels: new Float32Array(3) };
    const items = [small, ...Array.from({ length: 12 }, (_, id) => image(id))];
    const results = await values(
      from(items).pipe(encode(classifier), fanOut(), errors(classifier), aggregate(), verdict()),
    );
    await classifier.close();
    const failures = results.filter((result): result is ItemFailure => 'error' in result);
    expect(failures.map(({ path }) => path).sort()).toEqual(['image 0', 'image 4', 'image 8', 'small']);
    expect(results).toHaveLength(13);
  });

  it('end if the classifier is closed', async () => {
    const classifier = await openClassifier(async () => fakeModel({ beforeBatch: () => turns(5) }));
    const results = values(
      pulled(images(0, 50)).pipe(encode(classifier), fanOut(), errors(classifier), aggregate(), verdict()),
    );
    const closed = turns(15).then(() => classifier.close());
    await expect(results).rejects.toThrow('the classifier is closed');
    await closed;
  });
});
