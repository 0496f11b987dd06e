// `--search`: times every tile that the kernels of large cases can have on this device, and compares its bytes with those
// of the default tile. What it finds belongs into src/kernels/device/known-tiles.ts.

import { type BenchCase, launchesOf } from '../../src/bench/case.ts';
import { titleOf } from '../../src/bench/time-case.ts';
import type { Device, Family } from '../../src/kernels/device/device.ts';
import { idle, type Launch, prepare, readBack, submit } from '../../src/kernels/device/runtime.ts';
import { classKey, type ShapeClass } from '../../src/kernels/device/shape-class.ts';
import { withChoices } from '../../src/kernels/device/tile-search.ts';
import { chosenEntries, suiteEntries } from './perf.ts';
import { fillRandom } from './random-weights.ts';
import { messageOf, type Session, type Step } from './session.ts';
import { measure } from './timing.ts';

/** The measurement of one tile. */
export interface TileResult {
  /** The class of shapes, as a search in the product names it. */
  readonly shape: string;
  readonly tile: string;
  readonly isDefault: boolean;
  readonly ms?: number;
  readonly gflops?: number;
  /** Whether the result has the same bytes as with the default tile. Anything else is a mistake of the kernel. */
  readonly sameBytes?: boolean;
  readonly error?: string;
}

/** Ops whose kernels have tiles, forward only: gradients use the same kernels. */
const OPS: readonly string[] = ['linear', 'conv2d', 'attention'];

/** Bytes of a result that are compared. */
const COMPARED_BYTES = 2 ** 22;

/** Runs launches once and returns the beginning of what the last one wrote. */
async function resultOf(device: Device, launches: readonly Launch[]): Promise<Uint32Array> {
  const sequence = await prepare(device, launches);
  try {
    submit(device, (pass) => sequence.encode(pass));
    await idle(device);
    const { kernel, ranges } = launches.at(-1)!;
    const written = ranges[kernel.bindings.findLastIndex(({ access }) => access !== 'read')]!;
    const size = Math.min(written.size, COMPARED_BYTES);
    return new Uint32Array(await readBack(device, { ...written, size }));
  } finally {
    sequence.destroy();
  }
}

/** Returns the classes of shapes among launches, each once. */
const shapesOf = (launches: readonly Launch[]): ShapeClass[] => [
  ...new Map(
    launches.flatMap(({ kernel: { tuning } }) => (tuning ? [[classKey(tuning.shape), tuning.shape]] : [])),
  ).values(),
];

/** Times the tiles of every class of shapes in a case. A tile that fails is recorded with its error. */
export async function searchTilesOf(
  session: Session,
  step: Step,
  family: Family,
  entry: BenchCase,
): Promise<readonly TileResult[]> {
  const results: TileResult[] = [];
  const device = await session.device(family);
  const { launches, destroy } = launchesOf(device, entry, (count) => fillRandom(new Float32Array(count)));
  try {
    const expected = await resultOf(device, launches);
    for (const shape of shapesOf(launches)) {
      const key = classKey(shape);
      const { tile: usual, tiles } = launches.find(
        ({ kernel: { tuning } }) => tuning && classKey(tuning.shape) === key,
      )!.kernel.tuning!;
      for (const tile of [usual, ...tiles().filter((other) => other !== usual)]) {
        if (step.over()) return results;
        const common = { shape: key, tile, isDefault: tile === usual };
        try {
          const tiled = withChoices(launches, (other) => (classKey(other) === key ? tile : undefined));
          const found = await resultOf(device, tiled);
          const { ms } = await measure(device, tiled, { samples: 3, sampleMs: 10, left: step.left });
          const sameBytes = found.every((bits, i) => bits === expected[i]);
          results.push({ ...common, ms, gflops: entry.flops / ms / 1e6, sameBytes });
        } catch (error) {
          results.push({ ...common, error: messageOf(error).slice(0, 300) });
          if (device.isLost()) throw error;
        }
        step.keep(results);
      }
    }
    report(step, results);
    return results;
  } finally {
    destroy();
  }
}

/** Prints the default and the three fastest tiles of each class, and what went wrong. */
function report(step: Step, results: readonly TileResult[]): void {
  for (const key of new Set(results.map(({ shape }) => shape))) {
    step.say(key);
    const timed = results
      .filter((one) => one.shape === key && one.ms !== undefined)
      .sort((p, q) => p.ms! - q.ms!);
    for (const { tile, ms, gflops, isDefault } of timed.filter((one, i) => i < 3 || one.isDefault))
      step.say(
        `  ${ms!.toFixed(4).padStart(10)} ms ${gflops!.toFixed(0).padStart(8)} GFLOP/s  ${tile}${isDefault ? ' (default)' : ''}`,
      );
  }
  for (const { tile, error } of results.filter((one) => one.error))
    step.say(`  ${tile}: ${error!.slice(0, 160)}`);
  for (const { tile } of results.filter(({ sameBytes }) => sameBytes === false))
    step.say(`  ${tile}: its result differs from that of the default tile`);
}

/** Returns the families whose kernels have tiles, of those that a device can run, each with its cases. */
export function searchesOf(runs: readonly Family[], software: boolean) {
  // A software device runs the tiles of GPUs only in tests.
  const families = runs.filter((one) => (software ? one === 'subgroup' : one === 'tile' || one === 'matrix'));
  return (software ? suiteEntries : chosenEntries)
    .filter(({ op }) => OPS.includes(op))
    .flatMap((entry) =>
      families.map((family) => ({
        name: `${family} ${titleOf(entry)}`.replaceAll('.', ','), // a dot separates the sections of the results
        family,
        entry,
      })),
    );
}
