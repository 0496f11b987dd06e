// Times work on a device: repetitions that are long enough to measure, their median and their spread.

import type { GpuComputePass } from '../../host-types.ts';
import { median, quantile } from '../../numbers.ts';
import type { Device } from './device.ts';
import { processorTimes, usableCores } from './machine-load.ts';
import { idle, type Launch, prepare, submit } from './runtime.ts';
import { timedRuns } from './timed-work.ts';
import { hasClock } from './timestamps.ts';

export interface Timing {
  /** Median milliseconds of a run, by `clock`. */
  readonly ms: number;
  /** The lower and the upper quartile of the same. */
  readonly quartiles: readonly [low: number, high: number];
  /** The milliseconds of a run in each repetition, in order; statistical tests compare these. */
  readonly samples: readonly number[];
  /** Whose clock measured `ms`: that of a GPU with timestamps, else that of the host. */
  readonly clock: 'device' | 'host';
  /** Median milliseconds of a run by the host's clock, which include submitting and waiting. */
  readonly wallMs: number;
  /**
   * On a software adapter, the median of this process's processor time per run divided by the number of cores: what a run
   * would take if it kept all cores busy. Elsewhere `ms`.
   */
  readonly aloneMs: number;
  /** The number of cores that other processes used on average during the repetitions. */
  readonly otherCores: number;
  /** Runs per repetition. */
  readonly runs: number;
  /** Milliseconds of the first run, including compilation. */
  readonly firstMs: number;
}

export interface TimeOptions {
  /** Default: 7. */
  readonly repetitions?: number;
  /** How many milliseconds a repetition should last at least. Default: 25. */
  readonly repetitionMs?: number;
  /** Returns the milliseconds that are left; no repetition starts that would take longer. Default: no limit. */
  readonly left?: () => number;
}

/** The most dispatches in one pass; encoding more would take the host longer than running them takes the device. */
const MOST_DISPATCHES = 8192;

/** Times work that `encode` adds to a pass, `dispatches` dispatches each time. The pipelines must be compiled already. */
export async function timeEncoded(
  device: Device,
  encode: (pass: GpuComputePass) => void,
  dispatches: number,
  { repetitions = 7, repetitionMs = 25, left = () => Number.POSITIVE_INFINITY }: TimeOptions = {},
): Promise<Omit<Timing, 'firstMs'>> {
  const cores = await usableCores();
  const processor = await processorTimes();
  const run = (runs: number) => timedRuns(device, encode, runs);
  let { ms: once } = await run(1);
  const most = Math.max(1, Math.floor(MOST_DISPATCHES / Math.max(1, dispatches)));
  // A single short run is mostly submission and waiting, so that a second estimate is needed.
  if (once < repetitionMs / 4) once = (await run(Math.min(most, 16))).ms;
  const runs = Math.max(1, Math.min(most, Math.ceil(repetitionMs / once)));
  const [start, before] = [performance.now(), processor()];
  const all: { readonly ms: number; readonly wallMs: number; readonly aloneMs: number }[] = [];
  while (all.length < repetitions) {
    const { own } = processor();
    const repetition = await run(runs);
    all.push({ ...repetition, aloneMs: (processor().own - own) / cores / runs });
    if (left() < 2 * runs * repetition.wallMs) break;
  }
  const others = (processor().others - before.others) / (performance.now() - start);
  const samples = all.map(({ ms }) => ms);
  const ms = median(samples);
  const aloneMs = median(all.map((one) => one.aloneMs));
  return {
    ms,
    quartiles: [quantile(samples, 0.25), quantile(samples, 0.75)],
    samples,
    clock: hasClock(device) ? 'device' : 'host',
    wallMs: median(all.map(({ wallMs }) => wallMs)),
    aloneMs: device.capabilities.software && aloneMs > 0 ? aloneMs : ms,
    otherCores: Math.max(0, others),
    runs,
  };
}

/**
 * Compiles launches, runs them once, and times `repetitions` repetitions. Each runs the launches often enough to last
 * `repetitionMs`. `left` as in `TimeOptions`.
 */
export async function time(
  device: Device,
  launches: readonly Launch[],
  repetitions = 7,
  repetitionMs = 25,
  left?: () => number,
): Promise<Timing> {
  const start = performance.now();
  const sequence = await prepare(device, launches);
  try {
    submit(device, (pass) => sequence.encode(pass));
    await idle(device);
    const firstMs = performance.now() - start;
    const options = { repetitions, repetitionMs, ...(left ? { left } : {}) };
    const timing = await timeEncoded(device, (pass) => sequence.encode(pass), launches.length, options);
    return { ...timing, firstMs };
  } finally {
    sequence.destroy();
  }
}

/** Cores that other processes may use without disturbing a software adapter, which needs all of them. */
const UNDISTURBED_CORES = 0.25;

/**
 * Returns whether other work disturbed a timing: on a software adapter, if other processes used more than a quarter of a
 * core. A GPU needs the host only to submit work, so a timing by its own clock counts as undisturbed.
 */
export const isDisturbed = ({ clock, otherCores }: Pick<Timing, 'clock' | 'otherCores'>): boolean =>
  clock === 'host' && otherCores > UNDISTURBED_CORES;
