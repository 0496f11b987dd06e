// `diffclass-stream/kernels`: kernels as data, a device to run them on, how long they take, and the benchmark's cases.

export { type BenchCase, bytesOf, type CaseLaunches, launchesOf } from './bench/case.ts';
export type { CaseOptions } from './bench/case-options.ts';
export { benchCase, benchCases } from './bench/cases.ts';
export { type ComparedReport, type Comparison, compareReports, type Difference } from './bench/compare.ts';
export { measurePeak, type Peak } from './bench/peak.ts';
export type { BenchReport, BenchResult } from './bench/report.ts';
export { timeCase } from './bench/time-case.ts';
export { DeviceLostError, NoDeviceError, OutOfMemoryError, ShapeError } from './errors.ts';
export type { Capabilities, Device, DeviceOptions, Family } from './kernels/device/device.ts';
export { openDevice } from './kernels/device/device.ts';
export {
  type Access,
  accumulate,
  type Binding,
  ceilDiv,
  defineKernel,
  type Extension,
  f32,
  type Grid,
  i32,
  type Kernel,
  type KernelSpec,
  LINEAR_GROUP,
  linearGrid,
  read,
  type Tuning,
  type Uniform,
  u32,
  write,
} from './kernels/device/kernel.ts';
export type { MatrixUnit } from './kernels/device/matrix-units.ts';
export type { Packing, Routine, Step } from './kernels/device/routine.ts';
export {
  createStorage,
  idle,
  type Launch,
  prepare,
  type Range,
  readBack,
  type Sequence,
  submit,
} from './kernels/device/runtime.ts';
export type { ShapeClass, Tiles } from './kernels/device/shape-class.ts';
export type { Shape } from './kernels/device/tensor.ts';
export { type Timing, time } from './kernels/device/time.ts';
