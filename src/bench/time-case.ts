// Times one benchmark case on a device.

import type { Device } from '../kernels/device/device.ts';
import { withMemoryCheck } from '../kernels/device/runtime.ts';
import { isDisturbed, time } from '../kernels/device/time.ts';
import { waitFor } from '../kernels/device/wait.ts';
import { type BenchCase, bytesOf, launchesOf } from './case.ts';
import type { BenchResult } from './report.ts';

/** The name of a case in reports. */
export const titleOf = ({ op, name }: BenchCase): string => `${op} ${name}`;

/**
 * Runs `make`, and throws if the device reports a wrong use of it or runs out of memory meanwhile: a time with errors is
 * not that of the whole work.
 */
async function withDeviceChecks<T>(device: Device, make: () => Promise<T>): Promise<T> {
  return withMemoryCheck(device, async () => {
    device.gpu.pushErrorScope('validation');
    let value: T;
    try {
      value = await make();
    } catch (error) {
      await waitFor(device, device.gpu.popErrorScope());
      throw error;
    }
    const error = await waitFor(device, device.gpu.popErrorScope());
    if (error) throw new Error(error.message);
    return value;
  });
}

/**
 * Times a case: `repetitions` repetitions of at least 25 ms. A case that cannot run on the device gives a result with an
 * `error`, unless the device was lost.
 */
export async function timeCase(device: Device, benchCase: BenchCase, repetitions = 9): Promise<BenchResult> {
  const { software, family } = device.capabilities;
  const common = { name: titleOf(benchCase), family };
  try {
    const timing = await withDeviceChecks(device, async () => {
      const { launches, destroy } = launchesOf(device, benchCase);
      try {
        return await time(device, (await device.tune?.(launches)) ?? launches, repetitions);
      } finally {
        destroy();
      }
    });
    const { flops } = benchCase;
    return {
      ...common,
      ...timing,
      disturbed: isDisturbed(timing),
      ...(flops > 0 ? { gflops: flops / timing.ms / 1e6 } : {}),
      ...(flops > 0 && software ? { processorGflops: flops / timing.aloneMs / 1e6 } : {}),
      gbytes: bytesOf(benchCase) / timing.ms / 1e6,
    };
  } catch (error) {
    if (device.isLost()) throw error;
    return { ...common, error: error instanceof Error ? error.message : String(error) };
  }
}
