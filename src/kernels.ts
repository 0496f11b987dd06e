// `diffclass-stream/kernels`: kernels as data, a device to run them on, and how long they take.

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
  type Uniform,
  u32,
  write,
} from './kernels/device/kernel.ts';
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
export { type Timing, time } from './kernels/device/time.ts';
