import { describe, expect, it } from 'vitest';
import { DeviceLostError, ModelError, OutOfMemoryError, UsageError } from '../../src/errors.ts';
import { classifyImages } from '../../src/pipeline/classifying/classify-images.ts';
import { all } from '../../src/pipeline/deciding/all.ts';
import { sequential } from '../../src/pipeline/deciding/sequential.ts';
import { staged } from '../../src/pipeline/deciding/staged.ts';
import type { ClassifyOptions } from '../../src/pipeline/operators/classify-options.ts';
import {
  type Classified,
  type EvaluationRecord,
  type ImageItem,
  type ItemFailure,
  isFailure,
  type Progress,
} from '../../src/pipeline/types.ts';
import {
  collect,
  type Fake,
  type FakeOptions,
  fakeModel,
  image,
  images,
  noisyErrors,
  turns,
} from './fake-model.ts';

const strategies = {
  all: all(),
  staged: staged({ nSamples: [3, 6, 24], toKeep: [6, 2, 1] }),
  sequential: sequential(),
};

/** Returns results as lines of an output, without times, sorted by path. */
const lines = (results: readonly (Classified | ItemFailure)[]): string[] =>
  results.map((result) => JSON.stringify({ ...result, seconds: undefined })).sort();

async function classify(count: number, model: FakeOptions, options: ClassifyOptions) {
  const evaluations = new Map<string, EvaluationRecord[]>();
  const results = await collect(
    classifyImages(images(0, count), async () => fakeModel(model), {
      ...options,
      onEvaluations: (records) => {
        for (const record of records)
          evaluations.set(record.path, [...(evaluations.get(record.path) ?? []), record]);
      },
    }),
  );
  return { lines: lines(results), evaluations: [...evaluations].sort(([a], [b]) => (a < b ? -1 : 1)) };
}

const labelled = (results: readonly (Classified | ItemFailure)[]): Classified[] =>
  results.filter((result): result is Classified => !isFailure(result));

describe.each(Object.entries(strategies))('the same bytes (%s)', (_, strategy) => {
  it('for any batch size, any concurrency, and any duration of batches', async () => {
    const alone = await classify(6, { batchSize: 1, slots: 1 }, { strategy });
    expect(alone.lines).toHaveLength(6);
    for (const [batchSize, slots, concurrency] of [
      [3, 8, 3],
      [7, 4, 4],
      [16, 8, 8],
      [1000, 12, 6],
    ] as const) {
      const beforeBatch = (__: unknown, index: number) => turns((index * 7) % 3);
      const together = await classify(6, { batchSize, slots, beforeBatch }, { strategy, concurrency });
      expect(together).toEqual(alone);
    }
  });

  it('with any other images, in any order', async () => {
    const items = Array.from({ length: 12 }, (__, i) => image((i * 5) % 12));
    const shuffled = await collect(
      classifyImages(each(items), async () => fakeModel(), { strategy, concurrency: 5 }),
    );
    expect(lines(shuffled)).toEqual((await classify(12, {}, { strategy })).lines);
  });
});

async function* each<T>(values: Iterable<T>): AsyncGenerator<T> {
  yield* values;
}

describe('batches', () => {
  it('are full while there is enough work, two in flight, and never larger than the model allows', async () => {
    const model = fakeModel({ batchSize: 16, slots: 8, candidates: 10 });
    await collect(classifyImages(images(0, 40), async () => model, { strategy: all() }));
    const sizes = model.batches.map(({ slot }) => slot.length);
    expect(sizes.slice(0, -8).every((size) => size === 16)).toBe(true);
    expect(model.mostWaiting).toBe(2);
    expect(sizes.reduce((a, b) => a + b)).toBe(40 * 240);
  });

  it('mix images, so that a strategy with one level per round still fills them', async () => {
    const model = fakeModel({ batchSize: 30, slots: 32, candidates: 10 });
    await collect(classifyImages(images(0, 64), async () => model));
    const sizes = model.batches.map(({ slot }) => slot.length);
    expect(sizes.reduce((a, b) => a + b) / sizes.length).toBeGreaterThan(25);
    expect(model.batches.some(({ slot }) => new Set(slot).size > 2)).toBe(true);
  });

  it('keep a slot until its evaluations are done', async () => {
    const model = fakeModel({
      batchSize: 4,
      slots: 2,
      errorOf: (id, candidate, level) =>
        id % 3 === 0 && level === 1 && candidate === 2 ? Number.NaN : 0.1 * candidate + id,
    });
    const results = await collect(classifyImages(images(0, 9), async () => model, { strategy: all() }));
    expect(results.filter(isFailure).map(({ path }) => path)).toEqual(['image 0', 'image 3', 'image 6']);
    for (const { top } of labelled(results)) expect(top[0]!.error % 1).toBeCloseTo(0, 5);
  });
});

describe('items', () => {
  it('failures pass through as values, and wrong shapes become failures', async () => {
    const broken: ItemFailure = { path: 'b', error: { code: 'corrupt', message: 'half a file' } };
    const small: ImageItem = { path: 'c', pixels: new Float32Array(3) };
    const results = await collect(
      classifyImages(each([image(1), broken, small, image(2)]), async () => fakeModel()),
    );
    expect(results).toHaveLength(4);
    expect(results.filter(isFailure)).toEqual([
      broken,
      {
        path: 'c',
        error: {
          code: 'invalid-pixels',
          message: expect.stringContaining('expected 4 values (1 x 2 x 2), got 3'),
        },
      },
    ]);
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])(
    'an error of %d makes its image a failure',
    async (bad) => {
      const errorOf = (id: number, candidate: number, level: number) =>
        id === 2 && candidate === 3 && level === 0 ? bad : noisyErrors(10)(id, candidate, level, 0);
      const results = await collect(classifyImages(images(0, 5), async () => fakeModel({ errorOf })));
      expect(labelled(results)).toHaveLength(4);
      expect(results.filter(isFailure)).toEqual([
        {
          path: 'image 2',
          error: {
            code: 'not-finite',
            message: `fake: the model returned ${bad} as the error for "class 3" at t 5`,
          },
        },
      ]);
    },
  );

  it('may be none: there are no results, and the model is closed', async () => {
    const model = fakeModel();
    expect(await collect(classifyImages(images(0, 0), async () => model))).toEqual([]);
    expect(model.closed).toBe(1);
  });
});

describe('bounded memory', () => {
  it('reads a source of 100,000 items at most `concurrency` + 1 items ahead of the consumer', async () => {
    const pulled = { count: 0 };
    const model = fakeModel({ candidates: 2, levels: 2, batchSize: 64, slots: 32 });
    let taken = 0;
    let ahead = 0;
    for await (const _ of classifyImages(images(0, 100_000, pulled), async () => model, {
      strategy: all(),
      concurrency: 20,
    })) {
      taken++;
      ahead = Math.max(ahead, pulled.count - taken);
      if (taken % 100 === 0) await new Promise(setImmediate);
      if (taken === 5000) break;
    }
    expect(ahead).toBeLessThanOrEqual(21);
    expect(ahead).toBeGreaterThan(10);
  });

  it('stops reading if the consumer stops', async () => {
    const pulled = { count: 0 };
    const results = classifyImages(images(0, 1000, pulled), async () => fakeModel({ slots: 4 }));
    await results.next();
    await turns(30);
    expect(pulled.count).toBeLessThanOrEqual(6);
    await results.return?.();
  });
});

describe('lost devices', () => {
  /** Returns a factory whose n-th model is lost at its given batches. */
  function losing(lost: readonly (readonly number[])[], options: FakeOptions = {}) {
    const models: Fake[] = [];
    const openModel = async () => {
      const at = lost[models.length] ?? [];
      const beforeBatch = (_: unknown, index: number) => {
        if (at.some((n) => index >= n)) throw new DeviceLostError('the device went away');
      };
      const model = fakeModel({ beforeBatch, ...options });
      models.push(model);
      return model;
    };
    return { models, openModel };
  }

  it('once: the images run again, without lost or repeated results', async () => {
    const { models, openModel } = losing([[5]]);
    const results = await collect(classifyImages(images(0, 20), openModel));
    expect(lines(results)).toEqual((await classify(20, {}, {})).lines);
    expect(models.map(({ closed }) => closed)).toEqual([1, 1]);
  });

  it('repeatedly, with completed work in between: the run continues', async () => {
    const { models, openModel } = losing([[3], [2], [4], [1]]);
    const results = await collect(classifyImages(images(0, 20), openModel));
    expect(lines(results)).toEqual((await classify(20, {}, {})).lines);
    expect(models).toHaveLength(5);
  });

  it('twice in a row: the run ends with one error, and all models are closed', async () => {
    const { models, openModel } = losing([[3], [0]]);
    const results = classifyImages(images(0, 20), openModel);
    await expect(collect(results)).rejects.toThrow(DeviceLostError);
    expect(await results.next()).toEqual({ done: true, value: undefined });
    expect(models.map(({ closed }) => closed)).toEqual([1, 1]);
  });

  it('while an image is encoded', async () => {
    let encodes = 0;
    const beforeEncode = () => {
      if (++encodes === 11) throw new DeviceLostError('gone');
    };
    const { models, openModel } = losing([], { beforeEncode });
    const results = await collect(classifyImages(images(0, 20), openModel));
    expect(lines(results)).toEqual((await classify(20, {}, {})).lines);
    expect(models).toHaveLength(2);
  });

  it('replaced by one with fewer slots: the others wait', async () => {
    const sizes = [8, 2];
    const models: Fake[] = [];
    const openModel = async () => {
      const slots = sizes[models.length]!;
      const beforeBatch = (_: unknown, index: number) => {
        if (slots === 8 && index === 4) throw new DeviceLostError('gone');
      };
      const model = fakeModel({ slots, beforeBatch });
      models.push(model);
      return model;
    };
    const results = await collect(classifyImages(images(0, 20), openModel));
    expect(lines(results)).toEqual((await classify(20, {}, {})).lines);
  });

  it('out of memory: the batch is halved as often as needed', async () => {
    const expected: (number | undefined)[] = [];
    const openModel = async (request?: { batchSize: number }) => {
      expected.push(request?.batchSize);
      const batchSize = request?.batchSize ?? 32;
      return fakeModel({
        batchSize,
        beforeBatch: () => {
          if (batchSize > 8) throw new OutOfMemoryError('no memory');
        },
      });
    };
    const results = await collect(classifyImages(images(0, 20), openModel));
    expect(expected).toEqual([undefined, 16, 8]);
    expect(lines(results)).toEqual((await classify(20, {}, {})).lines);
  });

  it('out of memory, with a factory that ignores the smaller batch: the run ends', async () => {
    const beforeBatch = () => {
      throw new OutOfMemoryError('no memory');
    };
    const results = classifyImages(images(0, 3), async () => fakeModel({ beforeBatch }));
    await expect(collect(results)).rejects.toThrow(OutOfMemoryError);
  });

  it('replaced by one with other levels or candidates: the run ends, and both are closed', async () => {
    for (const other of [{ levels: 7 }, { candidates: 3 }]) {
      const models: Fake[] = [];
      const openModel = async () => {
        const beforeBatch = () => {
          if (models.length === 1) throw new DeviceLostError('gone');
        };
        const model = fakeModel({ beforeBatch, ...(models.length === 0 ? {} : other) });
        models.push(model);
        return model;
      };
      await expect(collect(classifyImages(images(0, 20), openModel))).rejects.toThrow(
        new ModelError(
          'fake: expected the same candidates and levels after opening the model again, got others',
        ),
      );
      expect(models.map(({ closed }) => closed)).toEqual([1, 1]);
    }
  });

  it('a model that returns too few errors ends the stream', async () => {
    const model = { ...fakeModel(), errors: async () => new Float32Array(1) };
    await expect(collect(classifyImages(images(0, 20), async () => model))).rejects.toThrow(
      new ModelError('fake: expected 16 answers (errors), got 1'),
    );
    expect(model.closed).toBe(1);
  });

  it('any other error of the model ends the stream once', async () => {
    const beforeBatch = (_: unknown, index: number) => {
      if (index === 3) throw new Error('validation');
    };
    const model = fakeModel({ beforeBatch });
    await expect(collect(classifyImages(images(0, 20), async () => model))).rejects.toThrow('validation');
    expect(model.closed).toBe(1);
  });

  it('a model that cannot be opened ends the stream before it reads the source', async () => {
    const pulled = { count: 0 };
    const openModel = async () => {
      throw new Error('no adapter');
    };
    await expect(collect(classifyImages(images(0, 3, pulled), openModel))).rejects.toThrow('no adapter');
    expect(pulled.count).toBe(0);
  });
});

describe('budget', () => {
  it('is never exceeded, and results that reach it are marked', async () => {
    const hard = () => fakeModel({ errorOf: noisyErrors(10, 0.001, 0.1) });
    for (const strategy of Object.values(strategies)) {
      const results = labelled(
        await collect(classifyImages(images(0, 6), async () => hard(), { strategy, budget: 37 })),
      );
      expect(results).toHaveLength(6);
      for (const { evaluations, decided } of results) {
        expect(evaluations).toBeLessThanOrEqual(37);
        expect(evaluations).toBeGreaterThan(27);
        expect(decided).toBe(false);
      }
    }
  });

  it('must be at least the number of candidates', async () => {
    const results = classifyImages(images(0, 1), async () => fakeModel(), { budget: 9 });
    await expect(collect(results)).rejects.toThrow(UsageError);
  });
});

describe('progress', () => {
  it('counts images, failures and evaluations', async () => {
    const broken: ItemFailure = { path: 'b', error: { code: 'corrupt', message: '' } };
    const seen: Progress[] = [];
    let clock = 0;
    const results = await collect(
      classifyImages(each([image(0), broken, image(1)]), async () => fakeModel(), {
        onProgress: (progress) => seen.push(progress),
        now: () => (clock += 500),
      }),
    );
    const spent = labelled(results).reduce((sum, { evaluations }) => sum + evaluations, 0);
    const last = seen.at(-1)!;
    expect(last).toMatchObject({ images: 3, failures: 1, evaluations: spent });
    expect(last.imagesPerSecond).toBeCloseTo(3 / last.seconds);
  });
});
