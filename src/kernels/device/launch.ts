// A launch is a kernel with its operands, as data; runtime.ts executes it.

import type { GpuBuffer } from '../../host-types.ts';
import type { Kernel } from './kernel.ts';

/** A part of a buffer, in bytes. */
export interface Range {
  readonly buffer: GpuBuffer;
  readonly offset: number;
  readonly size: number;
}

/** A kernel and the buffer ranges that it binds, in the order of its bindings. */
export interface Launch {
  readonly kernel: Kernel;
  readonly ranges: readonly Range[];
}
