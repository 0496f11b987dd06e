// Memory of activations that the plans of a model share. They run one after another, so that each may overwrite the
// values of the others.

import type { GpuBuffer } from '../../host-types.ts';
import type { Device } from '../../kernels/device/device.ts';
import { createStorage } from '../../kernels/device/runtime.ts';

export interface ActivationPool {
  /** Returns one distinct buffer per size, at least that large. Other callers get the same buffers. */
  take(sizes: readonly number[]): GpuBuffer[];
  readonly bytes: () => number;
  /** Destroys all buffers, and so makes the plans that use them useless. */
  destroy(): void;
}

/**
 * Returns an empty pool. Create the plan with the largest memory need (the largest batch) first; the pool then never
 * grows again. The values of a plan, including its inputs and outputs, are lost if another plan of the pool runs: write
 * the inputs before each run, and copy the outputs in the submission of the run or in the next one.
 */
export function activationPool(device: Device): ActivationPool {
  const buffers: GpuBuffer[] = [];
  return {
    take(sizes) {
      const free = [...buffers].sort((a, b) => a.size - b.size);
      const taken: GpuBuffer[] = [];
      const largestFirst = sizes.map((size, i) => ({ size, i })).sort((a, b) => b.size - a.size);
      for (const { size, i } of largestFirst) {
        const at = free.findIndex((buffer) => buffer.size >= size);
        const [found] = at < 0 ? [] : free.splice(at, 1);
        const buffer = found ?? createStorage(device, size, undefined, `activations ${buffers.length}`);
        if (!found) buffers.push(buffer);
        taken[i] = buffer;
      }
      return taken;
    },
    bytes: () => buffers.reduce((sum, { size }) => sum + size, 0),
    destroy() {
      for (const buffer of buffers) buffer.destroy();
      buffers.length = 0;
    },
  };
}
