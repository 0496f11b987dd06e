// Measures the ceilings that kernels on matrix units are compared with.
import { copyKernel, fmaKernel, whole } from '../src/bench/peak-kernels.ts';
import type { Kernel } from '../src/kernels/device/kernel.ts';
import type { MatrixUnit } from '../src/kernels/device/matrix-units.ts';
import { createStorage, type Launch } from '../src/kernels/device/runtime.ts';
import { measure } from './device/timing.ts';
import { randomHalves } from './matrix-check.ts';
import type { MatrixDevice } from './matrix-device.ts';
import { matrixKernel } from './peak-kernels.ts';

/** How long a repetition lasts and how many there are. */
export interface Repetitions {
  readonly count: number;
  readonly ms: number;
}

const DEFAULT: Repetitions = { count: 5, ms: 3 };

/** Milliseconds after which no further repetition starts. */
const LONGEST_MS = 500;

/** Returns the median milliseconds of one launch. */
export async function timeLaunch(
  { device }: MatrixDevice,
  launch: Launch,
  { count, ms }: Repetitions = DEFAULT,
): Promise<number> {
  const start = performance.now();
  const left = () => LONGEST_MS - (performance.now() - start);
  return (await measure(device, [launch], { samples: count, sampleMs: ms, left })).ms;
}

/** What the device reaches at most. */
export interface Ceilings {
  /** TFLOP/s of each matrix unit, with products in registers. */
  readonly matrix: Readonly<Record<string, number>>;
  /** TFLOP/s of products and sums in f32, in registers. */
  readonly f32: number;
  /** The same in f16; undefined if the device has no f16. */
  readonly f16: number | undefined;
  /** Gigabytes per second that a copy reads and writes. */
  readonly copy: number;
  /** Microseconds from one small dispatch to the next in the same pass. */
  readonly dispatch: number;
}

export const unitName = ({ M, N, K }: MatrixUnit): string => `${M}x${N}x${K}`;

/** Returns a kernel that repeats its products `turns` times, and its floating-point operations. */
type Load = (turns: number) => { readonly kernel: Kernel; readonly flops: number };

/** Measures the ceilings; `groups` workgroups keep every core busy. */
export async function measureCeilings(
  opened: MatrixDevice,
  small: boolean,
  note: (line: string) => void,
): Promise<Ceilings> {
  const { device, units, lanes } = opened;
  const groups = small ? 8 : 132 * 32;
  const target = small ? 2 : 4;
  const size = small ? 2 ** 20 : 2 ** 27;
  const seeds = randomHalves(2 ** 18, 5).bits;
  const [a, c] = [createStorage(device, size, seeds), createStorage(device, size)];
  const ranges = [a, c].map(whole);
  const rate = async (load: Load): Promise<number> => {
    const first = 16;
    const once = await timeLaunch(opened, { kernel: load(first).kernel, ranges }, { count: 2, ms: 1 });
    const { kernel, flops } = load(Math.max(first, Math.min(1 << 20, Math.round((first * target) / once))));
    return flops / (await timeLaunch(opened, { kernel, ranges }, { count: 5, ms: target })) / 1e9;
  };
  const attempt = async (name: string, load: Load): Promise<number> => {
    try {
      const found = await rate(load);
      note(`ceiling ${name}: ${found.toFixed(1)} TFLOP/s`);
      return found;
    } catch (error) {
      note(`ceiling ${name}: ${error instanceof Error ? error.message : error}`);
      return 0;
    }
  };
  try {
    const f32 = await attempt('f32', (turns) => fmaKernel('vec4f', groups, turns));
    const matrix: Record<string, number> = {};
    for (const unit of units) {
      let best = 0;
      for (const [chains, subgroups] of small
        ? ([[4, 1]] as const)
        : ([
            [8, 4],
            [8, 8],
            [16, 4],
          ] as const)) {
        const config = { ...unit, componentType: 'f16', resultComponentType: 'f32' };
        const load: Load = (turns) =>
          matrixKernel(config, lanes, { chains, subgroups, groups: groups / 4, turns });
        best = Math.max(
          best,
          await attempt(`matrix ${unitName(unit)}, ${chains} chains, ${subgroups} subgroups`, load),
        );
      }
      matrix[unitName(unit)] = best;
    }
    const f16 = device.capabilities.f16
      ? await attempt('f16', (turns) => fmaKernel('vec4h', groups, turns))
      : undefined;
    const copyMs = await timeLaunch(opened, { kernel: copyKernel(size / 16), ranges });
    const dispatch =
      (await timeLaunch(opened, { kernel: copyKernel(256), ranges }, { count: 5, ms: small ? 1 : 2 })) * 1e3;
    const copy = (2 * size) / copyMs / 1e6;
    note(`copy ${copy.toFixed(0)} GB/s, a small dispatch ${dispatch.toFixed(1)} us`);
    return { matrix, f32, f16, copy, dispatch };
  } finally {
    a.destroy();
    c.destroy();
  }
}
