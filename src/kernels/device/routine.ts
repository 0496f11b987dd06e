// What an op becomes on a device: kernels in order over named operands. Plain data, like a kernel.

import type { Kernel } from './kernel.ts';

/** A kernel and the operands it binds, by name, in the order of its bindings. */
export interface Step {
  readonly kernel: Kernel;
  readonly operands: readonly string[];
}

/** How a constant operand (a weight) is laid out for a routine. Equal keys mean equal bytes. */
export interface Packing {
  readonly key: string;
  readonly bytes: number;
  /** What is packed: floats, or the bits of halves. */
  readonly dtype: WeightDtype;
  /** Parts of a weight are a multiple of so many elements long. */
  readonly row: number;
  /**
   * Puts a part of the weight, whose first element is the weight's element `from`, where it belongs in `packed`: the
   * packed bytes of the whole weight, zero at first.
   */
  readonly place: (part: Elements, from: number, packed: ArrayBuffer) => void;
}

/** How weights are stored on the device; arithmetic is f32 either way. */
export type WeightDtype = 'f32' | 'f16';

/** Elements of a weight: floats, or the bits of halves. */
export type Elements = Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;

export interface Routine {
  readonly steps: readonly Step[];
  /** Bytes of scratch memory by operand name; unspecified before the first step and after the last. */
  readonly scratch: Readonly<Record<string, number>>;
  /** Layout of constant operands by name; an operand that is not listed is bound as f32 in its natural order. */
  readonly packing: Readonly<Record<string, Packing>>;
}

/** A routine of a single kernel without scratch or packed weights. */
export const single = (kernel: Kernel, operands: readonly string[]): Routine => ({
  steps: [{ kernel, operands }],
  scratch: {},
  packing: {},
});
