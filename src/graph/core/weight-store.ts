// One copy of every weight on the device, in the layout its kernels want, however many plans use it. Weights go from
// their file to the device's memory a part at a time: what loading takes beyond them is a few parts, and the memory
// that a device keeps for what it has not copied yet.

import { ModelError } from '../../errors.ts';
import type { Device } from '../../kernels/device/device.ts';
import { f32ToF16, MAX_F16 } from '../../kernels/device/half.ts';
import type { Elements, Packing, WeightDtype } from '../../kernels/device/routine.ts';
import { createFilled, idle, type Range } from '../../kernels/device/runtime.ts';
import type { Constant } from '../ops/value.ts';

export interface WeightStore {
  /** The constant in a routine's layout, packed and uploaded the first time. */
  get(constant: Constant, packing: Packing | undefined): Promise<Range>;
  readonly bytes: () => number;
  destroy(): void;
}

/** Elements of a part. */
const PART = 1 << 20;

/** Bytes on their way to the device that are waited for: Dawn holds a second copy of them until they have arrived. */
const UNDER_WAY = 2 ** 25;

/** An empty store on a device. */
export function weightStore(device: Device): WeightStore {
  const held = new Map<string, Promise<Range>>();
  let total = 0;
  let underWay = 0;
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
        done.catch(() => {}); // whoever awaits it hears of it; nobody does where a part before it failed
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
    underWay += buffer.size;
    if (underWay >= UNDER_WAY) {
      device.gpu.queue.submit([]);
      await idle(device);
      underWay = 0;
    }
    return { buffer, offset: 0, size: buffer.size };
  }

  return {
    get(constant, packing) {
      const key = `${constant.name} ${packing?.key ?? 'f32'}`;
      const found = held.get(key);
      if (found) return found;
      // One at a time: they share the memory of their parts, and two files' reads would only meet on the disk.
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

/** How a constant is read in parts; one without `read` has its values in memory, or makes them there. */
async function reader({ name, values, read }: Constant): Promise<NonNullable<Constant['read']>> {
  if (read) return read;
  const all = await values();
  return async (from, into) => {
    const part = all.subarray(from, from + into.length);
    if (into instanceof Float32Array) return into.set(part);
    const overflow = f32ToF16(part, into);
    if (overflow >= 0)
      throw new ModelError(
        `${name} holds ${part[overflow]} at ${from + overflow}, beyond ±${MAX_F16} of f16`,
      );
  };
}

/** Two arrays of at least `count` elements, kept for the weights to come: one is read while the other is placed. */
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
