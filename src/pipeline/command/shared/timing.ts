// Measures how long work takes on this machine, for `--dry-run`, and forecasts the least and the most time of a run. Time
// that is spent once (compiling) is kept apart from time that every unit of work takes.

import { sum } from '../../../numbers.ts';
import { duration } from './progress.ts';

/** Work that can be repeated: evaluations, purified images, queries of an attack. */
export interface Work {
  /** Does the given number of units at once. */
  readonly run: (units: number) => Promise<unknown>;
  /** Units that a run of the command does at once. */
  readonly fill: number;
  /** Runs that are in flight at the same time; 1. */
  readonly depth?: number;
}

/** What was measured. */
export interface Timing {
  /** Seconds that the first runs took longer than later ones: shaders are compiled, memory is planned. */
  readonly once: number;
  /** Units of a timed run, and how many runs were timed. */
  readonly units: number;
  readonly runs: number;
  /** Seconds of a unit: in the fastest group of timed runs, in the mean, and in the slowest group. */
  readonly fastest: number;
  readonly mean: number;
  readonly slowest: number;
}

/** Groups of runs that are timed at most; the fastest and the slowest group make the range. */
const GROUPS = 5;

/** Runs of a group, for each that is in flight. */
const RUNS = 2;

/** Seconds after which no further group is timed. At least two are. */
const ENOUGH = 8;

/** Seconds that one run may take. If a single unit shows that a full run would take longer, fewer units are timed. */
const LONGEST = 20;

/**
 * Times work after it was warmed up: a single unit, a single unit again, a full run, and then groups of full runs with
 * as many in flight as the command has.
 */
export async function timeWork(
  { run, fill, depth = 1 }: Work,
  now = () => performance.now(),
): Promise<Timing> {
  const seconds = async (work: () => Promise<unknown>) => {
    const begun = now();
    await work();
    return (now() - begun) / 1000;
  };
  const cold = await seconds(() => run(1));
  const single = await seconds(() => run(1));
  const units = Math.max(1, Math.min(fill, Math.floor(LONGEST / single) || 1));
  const first = units > 1 ? await seconds(() => run(units)) : 0;
  const lane = async () => {
    for (let i = 0; i < RUNS; i++) await run(units);
  };
  const group = () => Promise.all(Array.from({ length: depth }, lane));
  const each: number[] = [];
  let spent = 0;
  while (each.length < 2 || (each.length < GROUPS && spent < ENOUGH)) {
    const taken = await seconds(group);
    spent += taken;
    each.push(taken / (units * RUNS * depth));
  }
  const mean = sum(each) / each.length;
  return {
    once: Math.max(0, cold - single) + Math.max(0, first - units * mean),
    units,
    runs: each.length * RUNS * depth,
    fastest: Math.min(...each),
    mean,
    slowest: Math.max(...each),
  };
}

/**
 * The forecast range is wider than the timed one by this factor on either side, because other programs may take more or
 * less of the machine during the run. On two cores shared with a training job, dry runs of one model a few minutes apart
 * measured 5.3 to 8.4 ms per evaluation, and 3 to 6 seconds to open it.
 */
const MARGIN = 2;

/** An amount of work, or the seconds that it takes. */
export interface Range {
  /** The least work; in seconds, at the fastest speed that was timed. */
  readonly least: number;
  /** The work of a sample that was run for real; null if there was none. */
  readonly typical: number | null;
  /** The most work; in seconds, at the slowest speed that was timed. */
  readonly most: number;
}

/** Returns an amount of work that is known exactly. */
export const exactly = (amount: number): Range => ({ least: amount, typical: amount, most: amount });

/** Returns the time that an amount of timed work takes. */
export const secondsOf = (
  { fastest, mean, slowest }: Pick<Timing, 'fastest' | 'mean' | 'slowest'>,
  { least, typical, most }: Range,
): Range => ({
  least: (least * fastest) / MARGIN,
  typical: typical === null ? null : typical * mean,
  most: most * slowest * MARGIN,
});

/** Adds times. The typical time of the sum is known only if all typical times are. */
export const sumOf = (parts: readonly Range[]): Range => ({
  least: parts.reduce((sum, { least }) => sum + least, 0),
  typical: parts.reduce<number | null>(
    (sum, { typical }) => (sum === null || typical === null ? null : sum + typical),
    0,
  ),
  most: parts.reduce((sum, { most }) => sum + most, 0),
});

/** The times of a run, per image and for all images. The least time leaves out what is spent once: caches may save it. */
export interface RunTime {
  readonly once: number;
  readonly image: Range;
  readonly all: Range;
}

/** Returns the times of a run over a number of images (or items), given the time of one. */
export const runTimeOf = (images: number, image: Range, once: number): RunTime => ({
  once,
  image,
  all: {
    least: images * image.least,
    typical: image.typical === null ? null : images * image.typical + once,
    most: images * image.most + once * MARGIN,
  },
});

/** Formats seconds as a range for a person. */
export function rangeText({ least, typical, most }: Range): string {
  const [from, to] = [brief(least), brief(most)];
  const range = from === to ? from : `${from} to ${to}`;
  return typical === null ? range : `${range}, typically ${brief(typical)}`;
}

/** Formats seconds for a person; less than a second becomes milliseconds. */
export const brief = (seconds: number): string =>
  seconds < 0.95 ? `${Number((1000 * seconds).toPrecision(2))} ms` : duration(seconds);

/** What the range of every dry run means, as the last line of its text. */
export const MEANING = `from the least work at ${MARGIN} times the fastest timed speed to the most at 1/${MARGIN} of the slowest`;

/** Formats the rows of a dry run as text. */
export const rowsText = (rows: readonly (readonly [what: string, value: string])[]): string =>
  rows.map(([what, value]) => `${what.padEnd(22)}${value}\n`).join('');
