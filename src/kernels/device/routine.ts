// A routine is what an op compiles to: a sequence of kernels over named operands. It is plain data, like a kernel.

import { defineKernel, type Kernel, type KernelSpec } from './kernel.ts';

/** A kernel and the names of the operands that it binds, in the order of its bindings. */
export interface Step {
  readonly kernel: Kernel;
  readonly operands: readonly string[];
}

/** How a constant operand (a weight) is laid out for a routine. Equal keys mean equal bytes. */
export interface Packing {
  readonly key: string;
  readonly bytes: number;
  /** The element type: floats, or the bits of f16 values. */
  readonly dtype: WeightDtype;
  /** The length of every part of a weight is a multiple of this number of elements. */
  readonly row: number;
  /**
   * Writes a part of the weight to its places in `packed`, the packed bytes of the whole weight, which are
   * zero at first. The part begins with the weight's element `from`.
   */
  readonly place: (part: Elements, from: number, packed: ArrayBuffer) => void;
}

/** How weights are stored on the device; arithmetic is f32 with either type. */
export type WeightDtype = 'f32' | 'f16';

/** Elements of a weight: floats, or the bits of f16 values. */
export type Elements = Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;

export interface Routine {
  readonly steps: readonly Step[];
  /** Bytes of scratch memory by operand name; contents are unspecified before the first step and after the last. */
  readonly scratch: Readonly<Record<string, number>>;
  /** Layouts of constant operands by name. An operand that is not listed is bound as f32 in its natural order. */
  readonly packing: Readonly<Record<string, Packing>>;
}

/** Returns a step whose operands have the names of the kernel's bindings. */
export const step = (kernel: KernelSpec): Step => ({
  kernel: defineKernel(kernel),
  operands: kernel.bindings.map(({ name }) => name),
});

/** Returns a routine of one `step`, without scratch memory or packed weights. */
export const single = (kernel: KernelSpec): Routine => ({ steps: [step(kernel)], scratch: {}, packing: {} });
