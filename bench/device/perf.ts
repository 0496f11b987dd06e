// `--mode perf`: times every case of the kernel benchmark and larger ones, by family. Gives rates, and their shares
// of the peaks that were measured in the same run.

import { type BenchCase, bytesOf, launchesOf } from '../../src/bench/case.ts';
import { benchCases } from '../../src/bench/cases.ts';
import type { Family } from '../../src/kernels/device/device.ts';
import { largeEntries } from './large-cases.ts';
import type { Peak } from './peak.ts';
import { fillRandom } from './random-weights.ts';
import { messageOf, type Session, type Step } from './session.ts';
import { type Measured, measure } from './timing.ts';
import { openUnchecked } from './unchecked-device.ts';

export interface EntryResult {
  readonly op: string;
  readonly name: string;
  readonly family: string;
  readonly kernels?: readonly string[];
  readonly timing?: Measured;
  readonly gflops?: number;
  readonly gbytes?: number;
  readonly shareOfFlops?: number;
  readonly shareOfBytes?: number;
  readonly error?: string;
}

/** The error of a case for which there was no time. */
export const NO_TIME = 'skipped: it does not fit into the remaining time';

const random = (count: number) => fillRandom(new Float32Array(count));

/** Predicts the milliseconds of a case from the peak, so that no case is started that does not fit into the time. */
const expectedMs = (entry: BenchCase, peak: Peak): number =>
  Math.max(entry.flops / Math.max(0.1 * peak.gflops, 1), bytesOf(entry) / Math.max(0.2 * peak.gbytes, 1)) /
  1e6;

/** Orders entries so that the ops take turns: a step that ends early has then timed every op. */
export function roundRobin(list: readonly BenchCase[]): BenchCase[] {
  const byOp = new Map<string, BenchCase[]>();
  for (const entry of list) byOp.set(entry.op, [...(byOp.get(entry.op) ?? []), entry]);
  const longest = Math.max(...[...byOp.values()].map(({ length }) => length));
  return Array.from({ length: longest }, (_, i) =>
    [...byOp.values()].flatMap((queue) => queue[i] ?? []),
  ).flat();
}

const percent = (share: number | undefined): string =>
  share === undefined ? '' : `${(100 * share).toFixed(1)} %`;

/** Times entries with kernels of a family, the device's own by default. A failed entry is recorded with its error. */
export async function timeEntries(
  session: Session,
  step: Step,
  family: Family | undefined,
  list: readonly BenchCase[],
  peak: Peak,
  { samples = 7, sampleMs = 15 } = {},
): Promise<readonly EntryResult[]> {
  const results: EntryResult[] = [];
  // Matrix units have a peak of their own.
  const peakGflops = (family === 'matrix' && peak.matrixGflops) || peak.gflops;
  let kept = performance.now();
  for (const entry of list) {
    if (step.over()) break;
    const device = await session.device(family);
    const common = { op: entry.op, name: entry.name, family: device.capabilities.family };
    // An entry needs a first run with its compilation, a calibration and at least one sample.
    if (3 * expectedMs(entry, peak) > step.left()) {
      results.push({ ...common, error: NO_TIME });
      continue;
    }
    const errors = session.deviceErrors.length;
    try {
      const { launches, destroy } = launchesOf(device, entry, random);
      try {
        const timing = await measure(device, launches, { samples, sampleMs, left: step.left });
        const gflops = entry.flops / timing.ms / 1e6;
        const gbytes = bytesOf(entry) / timing.ms / 1e6;
        const result: EntryResult = {
          ...common,
          kernels: launches.map(({ kernel }) => kernel.name),
          timing,
          ...(entry.flops ? { gflops, shareOfFlops: gflops / peakGflops } : {}),
          gbytes,
          shareOfBytes: gbytes / peak.gbytes,
        };
        results.push(result);
        step.say(
          `${`${entry.op} ${entry.name}`.padEnd(64)} ${timing.ms.toFixed(4).padStart(10)} ms ${entry.flops ? `${gflops.toFixed(0).padStart(8)} GFLOP/s ${percent(result.shareOfFlops).padStart(8)}` : ''.padStart(25)} ${gbytes.toFixed(0).padStart(6)} GB/s ${percent(result.shareOfBytes).padStart(8)}`,
        );
      } finally {
        destroy();
      }
      if (session.deviceErrors.length > errors)
        throw new Error(session.deviceErrors.slice(errors).join('; '));
    } catch (error) {
      results.push({ ...common, error: messageOf(error).slice(0, 500) });
      step.say(`${entry.op} ${entry.name}: ${messageOf(error).slice(0, 200)}`);
      if (device.isLost()) session.closeDevices();
    }
    if (performance.now() - kept > 5000) {
      kept = performance.now();
      step.keep(results);
    }
  }
  return results;
}

/** The cases that are timed first, here and in PyTorch. */
export const chosenEntries: readonly BenchCase[] = roundRobin(largeEntries);
export const suiteEntries: readonly BenchCase[] = roundRobin(benchCases());

/** Cases whose ratios show what Dawn's checks of indices and its zeroed workgroup memory cost. */
const PROBES: readonly (readonly [op: string, name: string])[] = [
  ['linear', '2048->2048'],
  ['conv2d', '128->128 32x32 n=64'],
  ['conv2d', '320->320 64x64 n=16 3x3, compact'],
  ['attention', '8x80 heads, n=16, 1024 queries of 1024'],
  ['groupNorm', '[128,64,32,32]'],
];

/** A case with and without Dawn's checks. */
export interface WithoutChecks {
  readonly op: string;
  readonly name: string;
  readonly checkedMs: number;
  readonly uncheckedMs: number;
  readonly ratio: number;
}

/** Times some cases with and without Dawn's checks. */
export async function withoutChecks(
  session: Session,
  step: Step,
  peak: Peak,
): Promise<readonly WithoutChecks[]> {
  const list = largeEntries.filter(({ op, name }) =>
    PROBES.some(([probe, start]) => probe === op && name.startsWith(start)),
  );
  const checked = await timeEntries(session, step, undefined, list, peak, { samples: 3 });
  const unchecked = await openUnchecked(await session.device());
  session.watch(unchecked, 'unchecked');
  try {
    const found: WithoutChecks[] = [];
    for (const [i, entry] of list.entries()) {
      const before = checked[i]?.timing?.ms;
      if (step.over() || before === undefined) continue;
      const { launches, destroy } = launchesOf(unchecked, entry, random);
      try {
        const { ms } = await measure(unchecked, launches, { samples: 3, sampleMs: 15, left: step.left });
        found.push({
          op: entry.op,
          name: entry.name,
          checkedMs: before,
          uncheckedMs: ms,
          ratio: before / ms,
        });
        step.say(`${entry.op} ${entry.name}: ${(before / ms).toFixed(2)} times as fast without checks`);
      } finally {
        destroy();
      }
    }
    return found;
  } finally {
    unchecked.gpu.destroy();
  }
}
