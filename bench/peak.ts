// Measures what a device reaches at most, for comparison with the rates of kernels.

import type { Device } from '../src/kernels/device/device.ts';
import { createStorage } from '../src/kernels/device/runtime.ts';
import { time } from '../src/kernels/device/time.ts';
import { copyKernel, fmaKernel, whole } from './peak-kernels.ts';

export interface Peak {
  readonly gflops: number;
  readonly gbytes: number;
}

/** Measures the peaks of a device: products in registers, and a copy of 32 MiB. */
export async function measurePeak(device: Device, repetitions: number): Promise<Peak> {
  const size = 32 * 2 ** 20;
  const [x, y] = [createStorage(device, size), createStorage(device, size)];
  const ranges = [x, y].map(whole);
  const { kernel, flops } = fmaKernel('vec4f', 256, 64);
  const products = await time(device, [{ kernel, ranges }], repetitions);
  // A software driver starts few workgroups that each copy much; see src/kernels/device/indexing.ts.
  const copy = device.capabilities.software ? copyKernel(size / 16, 8, 256) : copyKernel(size / 16, 64);
  const copies = await time(device, [{ kernel: copy, ranges }], repetitions);
  x.destroy();
  y.destroy();
  return { gflops: flops / products.aloneMs / 1e6, gbytes: (2 * size) / copies.aloneMs / 1e6 };
}
