// Opens a Dawn device in Node with the features and flags that kernels on matrix units need.

import { type Device, openDevice } from '../src/kernels/device/device.ts';
import type { MatrixUnit } from '../src/kernels/gemm/gemm-matrix.ts';

/** `safe` keeps Dawn's bounds checks and zeroing of workgroup memory, `fast` switches both off. */
export type Flags = 'safe' | 'fast';

const FLAGS: Readonly<Record<Flags, string>> = {
  safe: 'allow_unsafe_apis,use_vulkan_memory_model,vulkan_enable_f16_on_nvidia',
  fast: 'allow_unsafe_apis,use_vulkan_memory_model,vulkan_enable_f16_on_nvidia,disable_robustness,disable_workgroup_init',
};

const FEATURES = [
  'shader-f16',
  'subgroups',
  'timestamp-query',
  'subgroup-size-control',
  'chromium-experimental-subgroup-matrix',
];

const LIMITS = [
  'maxStorageBufferBindingSize',
  'maxBufferSize',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxStorageBuffersPerShaderStage',
] as const;

export interface MatrixDevice {
  readonly device: Device;
  /** Units that multiply f16 and sum in f32; empty if the device has none. */
  readonly units: readonly MatrixUnit[];
  /** Every configuration that the adapter lists, as text. */
  readonly configurations: readonly string[];
  /** The largest number of lanes of a subgroup, to which a workgroup's width is rounded. */
  readonly lanes: number;
  readonly description: string;
  /** Messages of errors that nobody awaited, the newest last. */
  readonly errors: string[];
}

interface Configuration extends MatrixUnit {
  readonly componentType: string;
  readonly resultComponentType: string;
}

type MatrixInfo = GPUAdapterInfo & { readonly subgroupMatrixConfigs?: Iterable<Configuration> };

// An instance that is collected takes its devices with it.
const instances = new Map<Flags, GPU>();

/** Opens the first adapter, or undefined if there is none. */
export async function openMatrixDevice(flags: Flags): Promise<MatrixDevice | undefined> {
  let instance = instances.get(flags);
  if (!instance) {
    const { create, globals } = await import('webgpu');
    Object.assign(globalThis, globals);
    instance = create([
      `enable-dawn-features=${FLAGS[flags]}`,
      'disable-dawn-features=timestamp_quantization',
    ]) as GPU;
    instances.set(flags, instance);
  }
  const adapter = await instance.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) return undefined;
  const info = adapter.info as MatrixInfo;
  const configurations = [...(info.subgroupMatrixConfigs ?? [])];
  const gpu = await adapter.requestDevice({
    requiredFeatures: FEATURES.filter((feature) =>
      adapter.features.has(feature as GPUFeatureName),
    ) as GPUFeatureName[],
    requiredLimits: Object.fromEntries(LIMITS.map((limit) => [limit, adapter.limits[limit]])),
  });
  const errors: string[] = [];
  gpu.addEventListener('uncapturederror', (event) => {
    errors.push((event as GPUUncapturedErrorEvent).error.message);
  });
  return {
    device: await openDevice({ device: gpu }),
    units: configurations
      .filter((c) => c.componentType === 'f16' && c.resultComponentType === 'f32')
      .map(({ M, N, K }) => ({ M, N, K })),
    configurations: configurations.map(
      ({ M, N, K, componentType, resultComponentType }) =>
        `${M}x${N}x${K} ${componentType}->${resultComponentType}`,
    ),
    lanes: info.subgroupMaxSize ?? 0,
    description: [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(' '),
    errors,
  };
}
