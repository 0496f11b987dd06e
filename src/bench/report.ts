// What benchmarks write as JSON.

import type { Timing } from '../kernels/device/time.ts';
import type { Peak } from './peak.ts';

/** One measured thing of a report. */
export interface BenchResult extends Partial<Timing> {
  /** What was measured: `op case` for kernels. It identifies the result in comparisons, together with the family. */
  readonly name: string;
  /** The family of the kernels, if the benchmark compares families. */
  readonly family?: string;
  /** Whether other work disturbed the measurement (see `isDisturbed`). */
  readonly disturbed?: boolean;
  /** 10^9 floating-point operations per second by the clock that `ms` is measured with. */
  readonly gflops?: number;
  /** The same by this process's processor time, on a software adapter. */
  readonly processorGflops?: number;
  /** 10^9 bytes per second, if each operand were read or written once. */
  readonly gbytes?: number;
  /** Why there is no timing. */
  readonly error?: string;
}

export interface BenchReport {
  /** The name of the benchmark. */
  readonly bench: string;
  /** What the adapter calls itself. */
  readonly device: string;
  readonly families: readonly string[];
  readonly repetitions: number;
  /** The peaks of the device, measured in the same run. */
  readonly peak?: Peak;
  readonly results: readonly BenchResult[];
}
