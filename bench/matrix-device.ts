// Opens a Dawn device in Node with the features and flags that kernels on matrix units need.

import { type Device, openDevice } from '../src/kernels/device/device.ts';
import { type MatrixUnit, matrixUnits } from '../src/kernels/device/matrix-units.ts';
import { dawnFlags, EXTRA_FLAGS, matrixConfigs, openWith } from './dawn.ts';

/** `safe` keeps Dawn's bounds checks and zeroing of workgroup memory, `fast` switches both off. */
export type Flags = 'safe' | 'fast';

const FLAGS: Readonly<Record<Flags, readonly string[]>> = {
  safe: EXTRA_FLAGS,
  fast: dawnFlags('disable_robustness', 'disable_workgroup_init'),
};

export interface MatrixDevice {
  readonly device: Device;
  /** Units that multiply f16 and sum in f32; empty if the device has none. */
  readonly units: readonly MatrixUnit[];
  /** Every configuration that the adapter lists, as text. */
  readonly configurations: readonly string[];
  /** The largest number of lanes of a subgroup; the width of a workgroup is a multiple of it. */
  readonly lanes: number;
  readonly description: string;
  /** Messages of the device's uncaptured errors, oldest first. */
  readonly errors: string[];
}

/** Opens the first adapter. @throws Error if there is none. */
export async function openMatrixDevice(flags: Flags): Promise<MatrixDevice> {
  const { gpu, info } = await openWith(FLAGS[flags]);
  const configurations = matrixConfigs(info);
  const errors: string[] = [];
  gpu.addEventListener('uncapturederror', (event) => {
    errors.push((event as GPUUncapturedErrorEvent).error.message);
  });
  const units = matrixUnits(info);
  const device = await openDevice({ device: gpu });
  return {
    device: { ...device, capabilities: { ...device.capabilities, matrix: units } },
    units,
    configurations: configurations.map(
      ({ M, N, K, componentType, resultComponentType }) =>
        `${M}x${N}x${K} ${componentType}->${resultComponentType}`,
    ),
    lanes: info.subgroupMaxSize ?? 0,
    description: [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(' '),
    errors,
  };
}
