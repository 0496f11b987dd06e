// Measures what a device reaches at most, for comparison with the rates of kernels.

import type { Device } from '../kernels/device/device.ts';
import { createStorage } from '../kernels/device/runtime.ts';
import { time } from '../kernels/device/time.ts';
import { copyKernel, fmaKernel, whole } from './peak-kernels.ts';

/** What a device reaches at most. */
export interface Peak {
  /** Products and sums in registers, in 10^9 operations per second. */
  readonly gflops: number;
  /** Bytes read and written by a copy, in 10^9 per second. */
  readonly gbytes: number;
}

/** The work that saturates a device: few workgroups on two cores, many on a GPU, and copies larger than its caches. */
const LOADS = {
  software: { groups: 256, turns: 64, bytes: 2 ** 25 },
  gpu: { groups: 16_384, turns: 256, bytes: 2 ** 28 },
} as const;

/** Measures the peaks of a device, as medians. */
export async function measurePeak(device: Device, repetitions = 7): Promise<Peak> {
  const { software, maxBindingBytes } = device.capabilities;
  const { groups, turns, bytes } = LOADS[software ? 'software' : 'gpu'];
  const size = Math.min(bytes, maxBindingBytes);
  const [x, y] = [createStorage(device, size), createStorage(device, size)];
  try {
    const ranges = [x, y].map(whole);
    const { kernel, flops } = fmaKernel('vec4f', groups, turns);
    const products = await time(device, [{ kernel, ranges }], repetitions);
    // A software driver starts few workgroups that each copy much; see src/kernels/device/indexing.ts.
    const copy = software ? copyKernel(size / 16, 8, 256) : copyKernel(size / 16, 64);
    const copies = await time(device, [{ kernel: copy, ranges }], repetitions);
    return { gflops: flops / products.ms / 1e6, gbytes: (2 * size) / copies.ms / 1e6 };
  } finally {
    x.destroy();
    y.destroy();
  }
}
