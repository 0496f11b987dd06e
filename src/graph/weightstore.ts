// One copy of every weight on the device, in the layout its kernels want, however many plans use it.

import type { Device } from '../kernels/device.ts';
import type { Packing } from '../kernels/routine.ts';
import { createStorage, type Range } from '../kernels/runtime.ts';
import type { Constant } from './graph.ts';

export interface WeightStore {
  /** The constant in a routine's layout, packed and uploaded the first time. */
  get(constant: Constant, packing: Packing | undefined): Promise<Range>;
  readonly bytes: () => number;
  destroy(): void;
}

/** An empty store on a device. */
export function weightStore(device: Device): WeightStore {
  const held = new Map<string, Range>();
  return {
    async get(constant, packing) {
      const key = `${constant.name} ${packing?.key ?? 'f32'}`;
      let range = held.get(key);
      if (!range) {
        const values = await constant.values();
        const data = packing ? packing.pack(values) : (values as Float32Array<ArrayBuffer>);
        const buffer = createStorage(device, data.byteLength, data, key);
        range = { buffer, offset: 0, size: buffer.size };
        held.set(key, range);
      }
      return range;
    },
    bytes: () => [...held.values()].reduce((sum, { size }) => sum + size, 0),
    destroy() {
      for (const { buffer } of held.values()) buffer.destroy();
      held.clear();
    },
  };
}
