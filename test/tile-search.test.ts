// Tests of the search for tiles with a fake clock: kernels are names, and a table says how long each tile takes.

import { describe, expect, test } from 'vitest';
import type { Kernel } from '../src/kernels/device/kernel.ts';
import type { Launch } from '../src/kernels/device/launch.ts';
import { searchPlan, searchTiles, withChoices } from '../src/kernels/device/tile-search.ts';

/** Milliseconds that a launch of a class takes with each tile; the first is the tile of the rule. */
type Times = Readonly<Record<string, Readonly<Record<string, number>>>>;

/** Returns a launch of a class, with `size` as the one number of its uniform block. */
function launchOf(name: string, times: Times, size = 0, tile = Object.keys(times[name]!)[0]!): Launch {
  const kernel = (chosen: string): Kernel => ({
    name,
    bindings: [],
    uniforms: [{ name: 'size', type: 'u32', value: size }],
    wgsl: `${name} ${chosen}`,
    grid: [1, 1, 1],
    tuning: {
      shape: { kernel: name, types: 'f32', sizes: {} },
      tile: chosen,
      tiles: () => Object.keys(times[name]!),
      withTile: (other) => (other in times[name]! ? kernel(other) : undefined),
    },
  });
  return { kernel: kernel(tile), ranges: [] };
}

interface World {
  readonly compileMs?: number;
  readonly budgetMs?: number;
  /** Tiles whose text the driver refuses. */
  readonly broken?: readonly string[];
}

/** Runs a search and returns the chosen tiles by class, what was compiled, and the milliseconds that it took. */
async function searched(launches: readonly Launch[], times: Times, world: World = {}) {
  const { compileMs = 100, budgetMs = 20_000, broken = [] } = world;
  const compiled: string[] = [];
  const progress: string[] = [];
  let time = 5000;
  let alive = 0;
  const choices = await searchTiles(launches, {
    now: () => time,
    deadline: time + budgetMs,
    onProgress: (done, total) => progress.push(`${done}/${total}`),
    prepare: async (work) => {
      const tile = work[0]!.kernel.tuning!.tile;
      compiled.push(work[0]!.kernel.wgsl);
      time += compileMs;
      if (broken.includes(tile)) throw new Error('no such type');
      alive++;
      const ms = work.reduce((sum, { kernel }) => sum + times[kernel.name]![kernel.tuning!.tile]!, 0);
      return {
        time: async (runs) => {
          time += runs * ms;
          return ms;
        },
        destroy: () => {
          alive--;
        },
      };
    },
  });
  expect(alive).toBe(0);
  const tiles = Object.fromEntries(choices.map(({ shape, tile }) => [shape.kernel, tile]));
  return { choices, tiles, compiled, progress, took: time - 5000 };
}

describe('a search on a plan', () => {
  /** Returns the tiles of a search on two launches of which the whole takes `wholeMs` with the new tiles. */
  async function tilesFor(wholeMs: number, budgetMs = 20_000) {
    const times = { a: { old: 10, new: 5 }, b: { old: 30, same: 30 } };
    const plan = Object.keys(times).map((name) => launchOf(name, times));
    let time = 0;
    const choices = await searchPlan(plan, plan, {
      now: () => time,
      deadline: budgetMs,
      prepare: async (work) => {
        const sum = work.reduce(
          (total, { kernel }) => total + (kernel.wgsl === 'a new' ? 5 : kernel.name === 'a' ? 10 : 30),
          0,
        );
        const ms = work.length === 2 && work[0]!.kernel.wgsl === 'a new' ? wholeMs : sum;
        return {
          time: async (runs) => {
            time += runs * ms;
            return ms;
          },
          destroy: () => {},
        };
      },
    });
    return choices.map(({ tile }) => tile);
  }

  test('keeps its choices if they make the whole faster, and drops all of them if not', async () => {
    expect(await tilesFor(35)).toEqual(['old', 'new']);
    expect(await tilesFor(41)).toEqual(['old', 'old']);
  });

  test('keeps its choices if there is no time to compare the whole', async () => {
    expect(await tilesFor(41, 550)).toEqual(['old', 'new']);
  });
});

describe('a search', () => {
  test('chooses the fastest tile of each class', async () => {
    const times = { a: { old: 10, slow: 12, fast: 5, fair: 8 }, b: { old: 1, other: 2 } };
    const { tiles, choices, progress } = await searched([launchOf('a', times), launchOf('b', times)], times);
    expect(tiles).toEqual({ a: 'fast', b: 'old' });
    expect(choices[0]).toMatchObject({ gain: 2, tried: 3 });
    expect(choices[1]).toMatchObject({ gain: 1, tried: 1 });
    expect(progress).toEqual(['0/2', '1/2', '2/2']);
  });

  test('keeps the default tile unless another one is 3 % faster', async () => {
    const times = { a: { old: 10, near: 9.8 }, b: { old: 10, better: 9.6 } };
    const { tiles } = await searched([launchOf('a', times), launchOf('b', times)], times);
    expect(tiles).toEqual({ a: 'old', b: 'better' });
  });

  test('leaves out a tile that does not compile', async () => {
    const times = { a: { old: 10, broken: 1, fast: 5 } };
    expect((await searched([launchOf('a', times)], times, { broken: ['broken'] })).tiles).toEqual({
      a: 'fast',
    });
  });

  test('begins with the class that takes most time, counted by its launches', async () => {
    const times = { few: { old: 20, new: 10 }, many: { old: 5, new: 1 } };
    const many = Array.from({ length: 10 }, (_, size) => launchOf('many', times, size % 2));
    const { compiled } = await searched([launchOf('few', times), ...many], times);
    expect(compiled).toEqual(['few old', 'many old', 'many new', 'few new']);
  });

  test('leaves classes alone that take next to no time, and kernels without a choice', async () => {
    const times = { a: { old: 1000, new: 500 }, tiny: { old: 1, new: 0.1 }, only: { one: 1000 } };
    const { compiled, tiles } = await searched(
      Object.keys(times).map((name) => launchOf(name, times)),
      times,
    );
    expect(compiled).toEqual(['a old', 'tiny old', 'a new']);
    expect(tiles).toEqual({ a: 'new', tiny: 'old' });
  });

  test.each([0, 500, 5000, 20_000])('takes at most %i ms and one compilation', async (budgetMs) => {
    const tiles = Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`tile ${i}`, 100 - i]));
    const times = Object.fromEntries(Array.from({ length: 9 }, (_, i) => [`class ${i}`, tiles]));
    const launches = Object.keys(times).map((name) => launchOf(name, times));
    const { took, choices } = await searched(launches, times, { budgetMs, compileMs: 700 });
    expect(took).toBeLessThanOrEqual(budgetMs + 700 + 200);
    expect(choices).toHaveLength(9);
  });

  test('chooses nothing that it had no time to compare', async () => {
    const times = { a: { old: 100, new: 50 } };
    expect((await searched([launchOf('a', times)], times, { budgetMs: 1000 })).tiles).toEqual({ a: 'old' });
  });
});

test('choices replace kernels, but not where a kernel lacks the tile', () => {
  const times = { a: { old: 1, new: 1 }, b: { old: 1 } };
  const launches = [launchOf('a', times), launchOf('b', times)];
  const texts = (tile: string | undefined) =>
    withChoices(launches, () => tile).map(({ kernel }) => `${kernel.wgsl} ${kernel.tuning!.tile}`);
  expect(texts('new')).toEqual(['a new new', 'b old old']);
  expect(texts(undefined)).toEqual(['a old old', 'b old old']);
});
