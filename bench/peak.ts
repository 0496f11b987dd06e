// Measures what a device reaches without a kernel's burdens, for comparison with kernel timings.

import type { Capabilities, Device } from '../src/kernels/device/device.ts';
import { walk } from '../src/kernels/device/indexing.ts';
import { defineKernel, type Kernel, read, write } from '../src/kernels/device/kernel.ts';
import { createStorage } from '../src/kernels/device/runtime.ts';
import { time } from '../src/kernels/device/time.ts';
import { fmaKernel, whole } from './peak-kernels.ts';

function copyKernel(capabilities: Capabilities, vectors: number): Kernel {
  const { main, uniforms, grid } = walk(capabilities, vectors);
  return defineKernel({
    name: 'bench.copy',
    bindings: [read('x', 'vec4f'), write('y', 'vec4f')],
    uniforms,
    body: main('y[i] = x[i];'),
    grid,
  });
}

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
  const copies = await time(
    device,
    [{ kernel: copyKernel(device.capabilities, size / 16), ranges }],
    repetitions,
  );
  x.destroy();
  y.destroy();
  return { gflops: flops / products.aloneMs / 1e6, gbytes: (2 * size) / copies.aloneMs / 1e6 };
}
