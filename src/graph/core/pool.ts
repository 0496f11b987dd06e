// Memory of activations shared by the plans of one model: they run one after another, so that each may write where
// the others did.

import type { GpuBuffer } from '../../host-types.ts';
import type { Device } from '../../kernels/device/device.ts';
import { createStorage } from '../../kernels/device/runtime.ts';

export interface ActivationPool {
  /** A buffer of at least each size, no two the same; other callers are given them too. */
  take(sizes: readonly number[]): GpuBuffer[];
  readonly bytes: () => number;
  /** Destroys every buffer; the plans that were given them are of no more use. */
  destroy(): void;
}

/**
 * An empty pool. It grows least where the plan that wants most memory comes first, as the one of the largest batch.
 * What a plan of the pool holds, its inputs and outputs too, lasts until another plan of the pool runs: write inputs in
 * front of each run, and copy outputs in the submission of the run or in the next.
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
