// One copy of each weight on the device, in the layout of its kernels, shared by all plans. Weights are copied from their
// file to the device in parts. Loading therefore takes, in addition to the weights, only the memory of a few parts, and
// what the device holds of parts that it has not copied yet.

import { ModelError } from '../../errors.ts';
import type { Device } from '../../kernels/device/device.ts';
import { f32ToF16, MAX_F16 } from '../../kernels/device/half.ts';
import type { Elements, Packing, WeightDtype } from '../../kernels/device/routine.ts';
import { createFilled, idle, type Range } from '../../kernels/device/runtime.ts';
import type { Constant } from '../ops/value.ts';

export interface WeightStore {
  /** Returns the constant in a routine's layout. Packs and uploads it at the first call. */
  get(constant: Constant, packing: Packing | undefined): Promise<Range>;
  readonly bytes: () => number;
  destroy(): void;
}

/** The elements of a part. */
const PART = 1 << 20;

/** The most bytes that are being copied at the same time: Dawn holds a second copy of them until they have arrived. */
const MOST_PENDING = 2 ** 25;

/** Returns an empty store on a device. */
export function weightStore(device: Device): WeightStore {
  const held = new Map<string, Promise<Range>>();
  let total = 0;
  let pending = 0;
  let last: Promise<unknown> = Promise.resolve();
  const parts: Partial<Record<WeightDtype, readonly Elements[]>> = {};

  async function upload(constant: Constant, packing: Packing | undefined, label: string): Promise<Range> {
    const bytes = packing?.bytes ?? 4 * constant.length;
    const fill = async (mapped: ArrayBuffer) => {
      const read = await reader(constant);
      if (!packing) return read(0, new Float32Array(mapped, 0, constant.length));
      const { dtype, row, place } = packing;
      const count = Math.min(constant.length, Math.max(row, PART - (PART % row)));
      const memory = partsOf(parts, dtype, count);
      const start = (from: number, turn: number) => {
        const part = memory[turn]!.subarray(0, Math.min(count, constant.length - from)) as Elements;
        const done = read(from, part);
        done.catch(() => {}); // The loop below reports the error, unless an earlier part has failed.
        return { part, done };
      };
      let next = start(0, 0);
      for (let from = 0, turn = 0; from < constant.length; from += count) {
        await next.done;
        const { part } = next;
        turn = 1 - turn;
        if (from + count < constant.length) next = start(from + count, turn);
        place(part, from, mapped);
      }
    };
    const buffer = await createFilled(device, bytes, fill, label);
    total += buffer.size;
    pending += buffer.size;
    if (pending >= MOST_PENDING) {
      device.gpu.queue.submit([]);
      await idle(device);
      pending = 0;
    }
    return { buffer, offset: 0, size: buffer.size };
  }

  return {
    get(constant, packing) {
      const key = `${constant.name} ${packing?.key ?? 'f32'}`;
      const found = held.get(key);
      if (found) return found;
      // Weights are uploaded one at a time: they share the memory of the parts, and parallel reads gain nothing on a disk.
      const range = last.then(() => upload(constant, packing, key));
      last = range.catch(() => held.delete(key));
      held.set(key, range);
      return range;
    },
    bytes: () => total,
    destroy() {
      for (const range of held.values()) range.then(({ buffer }) => buffer.destroy()).catch(() => {});
      held.clear();
      total = 0;
    },
  };
}

/** Returns the function that reads a constant in parts. A constant without `read` is read from its values in memory. */
async function reader({ name, values, read }: Constant): Promise<NonNullable<Constant['read']>> {
  if (read) return read;
  const all = await values();
  return async (from, into) => {
    const part = all.subarray(from, from + into.length);
    if (into instanceof Float32Array) return into.set(part);
    const overflow = f32ToF16(part, into);
    if (overflow >= 0)
      throw new ModelError(
        `${name}: expected values within ±${MAX_F16} (f16), got ${part[overflow]} at ${from + overflow}`,
      );
  };
}

/** Returns two arrays of at least `count` elements, which are reused: one is filled while the other is packed. */
function partsOf(
  kept: Partial<Record<WeightDtype, readonly Elements[]>>,
  dtype: WeightDtype,
  count: number,
): readonly Elements[] {
  const found = kept[dtype];
  if (found && found[0]!.length >= count) return found;
  const make = () => (dtype === 'f16' ? new Uint16Array(count) : new Float32Array(count));
  const made = [make(), make()];
  kept[dtype] = made;
  return made;
}
