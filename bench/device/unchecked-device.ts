// Opens a device without Dawn's checks of indices and without zeroed workgroup memory, to measure what these cost.

import { DAWN_FEATURES } from '../../src/kernels/device/adapters.ts';
import { type Device, openDevice, RAISED_LIMITS } from '../../src/kernels/device/device.ts';

const UNCHECKED = [
  'disable_robustness',
  'disable_workgroup_init',
  'disable_polyfills_on_integer_div_and_mod',
];

/** Dawn's instance. One that is garbage-collected takes its adapters and devices with it. */
let instance: GPU | undefined;

/**
 * Opens a device with the features and limits of another one, but without checks.
 * @throws Error if Dawn has no adapter without checks.
 */
export async function openUnchecked({ gpu: { features, limits } }: Device): Promise<Device> {
  const { create } = await import('webgpu');
  instance ??= create([
    `enable-dawn-features=${[...DAWN_FEATURES, ...UNCHECKED].join()}`,
    'disable-dawn-features=timestamp_quantization',
  ]) as GPU;
  const adapter = await instance.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) throw new Error('expected an adapter without checks, got none');
  const requiredLimits = Object.fromEntries(RAISED_LIMITS.map((name) => [name, limits[name]]));
  const gpu = await adapter.requestDevice({
    requiredFeatures: [...features] as GPUFeatureName[],
    requiredLimits,
  });
  return openDevice({ device: gpu });
}
