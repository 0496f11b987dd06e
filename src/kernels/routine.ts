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
  readonly pack: (values: Float32Array) => ArrayBufferView<ArrayBuffer>;
}

/** How weights are stored on the device; arithmetic is f32 either way. */
export type WeightDtype = 'f32' | 'f16';

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
