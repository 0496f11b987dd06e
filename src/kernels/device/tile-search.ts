// The search for the fastest tiles: times the candidates of every class of shapes on the launches of a plan, the most
// expensive classes first, until a deadline. Expensive classes also get more of the time.
//
// A class is timed as a whole: all its different launches one after another, with the plan's own operands. Every
// candidate is timed a few times. The fastest ones are then compared with the default tile in pairs of runs, so that
// other work and changes of the clock rate affect both, and must win by a margin. At the end the whole plan is compared
// in the same way, because kernels that are fast alone may disturb each other's caches.

import type { Kernel } from './kernel.ts';
import type { Launch } from './launch.ts';
import { classKey, type ShapeClass } from './shape-class.ts';
import type { TimedWork } from './timed-work.ts';

/** How much faster than the default tile another one must be to be chosen, as a share of the default's time. */
const MARGIN = 0.03;
/** Classes with a smaller share of the time of all keep their default tile. */
const SMALLEST_SHARE = 0.005;
/** The most different launches of a class that are timed, those that occur most often. */
const MOST_LAUNCHES = 8;
/** Milliseconds that one timing takes at least: on a GPU, whose timestamps are precise, and by the clock of the host. */
const SAMPLE_MS = 10;
/** Timings of every candidate, of which the shortest counts, and pairs of timings of the fastest ones. */
const TIMINGS = 3;
const PAIRS = 7;
/** The fewest pairs that a tile must win. */
const LEAST_WINS = 6;
/** How many of the fastest candidates are compared in pairs, until one of them wins. */
const FINALISTS = 2;
/** The fewest and the most pairs of runs of the whole plan, and the share of the search's time that they may take. */
const PLAN_PAIRS = [5, 25] as const;
const PLAN_SHARE = 0.2;

export interface SearchOptions {
  /** Compiles launches for timing. A rejection means that the tile is not possible. */
  readonly prepare: (launches: readonly Launch[]) => Promise<TimedWork>;
  /** Returns milliseconds on any clock. */
  readonly now: () => number;
  /** The time by this clock after which nothing more is compiled or timed. */
  readonly deadline: number;
  /** Called before each class: how many of them are done. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** The tile for a class of shapes. */
export interface Choice {
  readonly shape: ShapeClass;
  readonly tile: string;
  /** The default tile's time divided by the chosen tile's; 1 for the default tile itself. */
  readonly gain: number;
  /** Tiles other than the default that were timed. */
  readonly tried: number;
}

/** The launches of one class of shapes. */
interface Group {
  readonly shape: ShapeClass;
  /** The tile that the launches have. */
  readonly tile: string;
  /** Different launches, most frequent first, and how many launches there are for each of them. */
  readonly launches: readonly Launch[];
  readonly repeats: number;
}

/** Returns the upper one of two middle values, so that an even number of ratios must win more clearly. */
const upperMedian = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1]!;

/** Returns a text that two launches share if they take the same time. */
const workKey = ({ wgsl, uniforms, grid }: Kernel): string =>
  [wgsl, ...uniforms.map(({ value }) => value), ...grid].join();

/**
 * Runs two works in turns and returns the times of the second divided by those of the first. Returns none if the deadline
 * comes before `pairs` pairs are done.
 */
async function comparedRuns(
  first: TimedWork,
  second: TimedWork,
  pairs: number,
  runs: number,
  { now, deadline }: Pick<SearchOptions, 'now' | 'deadline'>,
): Promise<number[]> {
  const ratios: number[] = [];
  for (let pair = 0; pair < pairs; pair++) {
    if (now() > deadline) return [];
    const ms = await first.time(runs);
    ratios.push((await second.time(runs)) / ms);
  }
  return ratios;
}

/** Groups the launches that have a choice of tiles by their classes of shapes. */
function groupsOf(launches: readonly Launch[]): Group[] {
  const classes = new Map<string, Launch[]>();
  for (const launch of launches) {
    const { tuning } = launch.kernel;
    if (!tuning || tuning.tiles().length < 2) continue;
    const key = `${classKey(tuning.shape)} ${tuning.tile}`;
    classes.set(key, [...(classes.get(key) ?? []), launch]);
  }
  return [...classes.values()].map((members) => {
    const different = new Map<string, Launch[]>();
    for (const launch of members) {
      const key = workKey(launch.kernel);
      different.set(key, [...(different.get(key) ?? []), launch]);
    }
    const frequent = [...different.values()].sort((a, b) => b.length - a.length).slice(0, MOST_LAUNCHES);
    const { shape, tile } = members[0]!.kernel.tuning!;
    return {
      shape,
      tile,
      launches: frequent.map(([launch]) => launch!),
      repeats: members.length / frequent.length,
    };
  });
}

/** Returns launches with the tiles of a search. Launches of other classes, and kernels without the tile, stay. */
export function withChoices(
  launches: readonly Launch[],
  tileOf: (shape: ShapeClass) => string | undefined,
): Launch[] {
  return launches.map((launch) => {
    const { tuning } = launch.kernel;
    const tile = tuning && tileOf(tuning.shape);
    if (tile === undefined || tile === tuning!.tile) return launch;
    const kernel = tuning!.withTile(tile);
    return kernel ? { ...launch, kernel } : launch;
  });
}

/** Times the candidates of one class. */
async function searchGroup(
  group: Group,
  usual: TimedWork,
  usualMs: number,
  options: SearchOptions,
): Promise<Choice> {
  const { prepare, now, deadline } = options;
  const { shape, tile, launches } = group;
  const runs = Math.max(1, Math.ceil(SAMPLE_MS / usualMs));
  const pairsMs = PAIRS * 2 * runs * usualMs;
  const works: { readonly tile: string; readonly work: TimedWork; readonly ms: number }[] = [];
  let [tried, longest] = [0, TIMINGS * runs * usualMs];
  try {
    for (const candidate of launches[0]!.kernel.tuning!.tiles()) {
      if (candidate === tile) continue;
      if (now() + longest + pairsMs > deadline) break;
      const kernels = launches.map(({ kernel }) => kernel.tuning?.withTile(candidate));
      if (kernels.some((kernel) => kernel === undefined)) continue;
      const start = now();
      const work = await prepare(launches.map((launch, i) => ({ ...launch, kernel: kernels[i]! }))).catch(
        () => undefined,
      );
      if (!work) continue;
      tried++;
      const times: number[] = [];
      while (times.length < TIMINGS && now() <= deadline) times.push(await work.time(runs));
      works.push({ tile: candidate, work, ms: Math.min(Number.POSITIVE_INFINITY, ...times) });
      longest = Math.max(longest, now() - start);
    }
    const fastest = [...works].sort((p, q) => p.ms - q.ms).slice(0, FINALISTS);
    for (const { tile: found, work, ms } of fastest) {
      if (ms > (1 - MARGIN / 2) * usualMs) break;
      const ratios = await comparedRuns(usual, work, PAIRS, runs, options);
      if (ratios.filter((one) => one < 1).length < LEAST_WINS) continue;
      const ratio = upperMedian(ratios);
      if (ratio <= 1 - MARGIN) return { shape, tile: found, gain: 1 / ratio, tried };
    }
    return { shape, tile, gain: 1, tried };
  } finally {
    for (const { work } of works) work.destroy();
  }
}

/**
 * Returns a tile for every class of shapes among the launches. Classes for which there is no time keep the tile that
 * they have. The search ends by the deadline, or by the end of the compilation that is under way then.
 *
 * The launches are run, which overwrites what they write.
 */
export async function searchTiles(launches: readonly Launch[], options: SearchOptions): Promise<Choice[]> {
  const { prepare, now, deadline, onProgress } = options;
  const groups: { readonly group: Group; readonly work: TimedWork; readonly ms: number }[] = [];
  const choices: Choice[] = [];
  const keep = ({ shape, tile }: Group) => choices.push({ shape, tile, gain: 1, tried: 0 });
  try {
    for (const group of groupsOf(launches)) {
      if (now() > deadline) {
        keep(group);
        continue;
      }
      const work = await prepare(group.launches);
      groups.push({ group, work, ms: Math.min(await work.time(1), await work.time(1)) });
    }
    const cost = ({ group, ms }: (typeof groups)[number]) => group.repeats * ms;
    const total = groups.reduce((sum, entry) => sum + cost(entry), 0);
    groups.sort((p, q) => cost(q) - cost(p));
    let rest = total;
    for (const [i, entry] of groups.entries()) {
      onProgress?.(i, groups.length);
      // A class gets twice its share of the time that is left: most classes are done before their time is over.
      const share = Math.min(1, (2 * cost(entry)) / rest);
      rest -= cost(entry);
      if (cost(entry) < SMALLEST_SHARE * total || now() > deadline) keep(entry.group);
      else {
        const until = now() + share * (deadline - now());
        choices.push(await searchGroup(entry.group, entry.work, entry.ms, { ...options, deadline: until }));
      }
    }
    if (groups.length > 0) onProgress?.(groups.length, groups.length);
    return choices;
  } finally {
    for (const { work } of groups) work.destroy();
  }
}

/**
 * Returns whether launches as a whole are at least as fast with other tiles. If there is no time to compare them often
 * enough, the comparison of their classes counts.
 */
async function isFaster(
  usual: readonly Launch[],
  chosen: readonly Launch[],
  options: SearchOptions,
): Promise<boolean> {
  const { prepare, now, deadline } = options;
  const works: TimedWork[] = [];
  try {
    for (const launches of [usual, chosen]) works.push(await prepare(launches));
    const [first, second] = works as [TimedWork, TimedWork];
    const start = now();
    await first.time(1);
    const ms = now() - start;
    const runs = Math.max(1, Math.ceil(SAMPLE_MS / ms));
    const pairs = Math.min(PLAN_PAIRS[1], Math.floor((deadline - now()) / (2 * runs * ms)));
    if (pairs < PLAN_PAIRS[0]) return true;
    const ratios = await comparedRuns(first, second, pairs, runs, options);
    return ratios.length === 0 || upperMedian(ratios) <= 1;
  } finally {
    for (const work of works) work.destroy();
  }
}

/**
 * Searches for tiles for some of a plan's launches, and returns the choices that make the whole plan faster: all of them
 * or, if it does not become faster, the tiles that the launches have. Takes and does what `searchTiles` does.
 */
export async function searchPlan(
  plan: readonly Launch[],
  searched: readonly Launch[],
  options: SearchOptions,
): Promise<Choice[]> {
  const left = Math.max(0, options.deadline - options.now());
  const choices = await searchTiles(searched, { ...options, deadline: options.deadline - PLAN_SHARE * left });
  if (choices.every(({ gain }) => gain === 1)) return choices;
  const tiles = new Map(choices.map(({ shape, tile }) => [classKey(shape), tile]));
  const chosen = withChoices(plan, (shape) => tiles.get(classKey(shape)));
  if (await isFaster(plan, chosen, options)) return choices;
  const usual = new Map(
    searched.map(({ kernel: { tuning } }) => [tuning && classKey(tuning.shape), tuning?.tile]),
  );
  return choices.map((choice) => ({ ...choice, tile: usual.get(classKey(choice.shape))!, gain: 1 }));
}
