// Opens Dawn with chosen flags: the product's, or those and others that the product does not set.

import { DAWN_FEATURES } from '../src/kernels/device/adapters.ts';
import { RAISED_LIMITS } from '../src/kernels/device/device.ts';

/**
 * Returns Dawn's flags for f16 on NVIDIA and for subgroup matrices, and those of `more`. dawn.node applies them to the
 * instance, the adapter and the device.
 */
const dawnFlags = (...more: readonly string[]): readonly string[] => [
  `enable-dawn-features=${[...DAWN_FEATURES, ...more].join()}`,
  'disable-dawn-features=timestamp_quantization',
];

export const EXTRA_FLAGS = dawnFlags();

/** The same flags without checks of indices and without zeroed workgroup memory, to measure what these cost. */
export const UNCHECKED_FLAGS = dawnFlags(
  'disable_robustness',
  'disable_workgroup_init',
  'disable_polyfills_on_integer_div_and_mod',
);

const FEATURES = [
  'subgroups',
  'shader-f16',
  'timestamp-query',
  'chromium-experimental-subgroup-matrix',
  'subgroup-size-control',
];

export const NO_ADAPTER =
  'expected an adapter with these flags, got none: is a Vulkan driver installed (bench -- device --mode support)?';

/** Dawn's instances by their flags. An instance that is garbage-collected takes its adapters and devices with it. */
const instances = new Map<string, GPU>();

/** Returns the first adapter that Dawn lists with these flags; null if there is none. */
export async function adapterWith(flags: readonly string[]): Promise<GPUAdapter | null> {
  const key = flags.join('\n');
  let instance = instances.get(key);
  if (!instance) {
    const { create, globals } = await import('webgpu');
    Object.assign(globalThis, globals);
    instance = create([...flags]) as GPU;
    instances.set(key, instance);
  }
  return instance.requestAdapter({ powerPreference: 'high-performance' });
}

/**
 * Opens a device with all features and limits that kernels can use. `info` is that of the adapter, because the device's
 * own has no matrix configurations.
 * @throws Error if there is no adapter with these flags.
 */
export async function openWith(
  flags: readonly string[],
): Promise<{ readonly gpu: GPUDevice; readonly info: GPUAdapterInfo }> {
  const adapter = await adapterWith(flags);
  if (!adapter) throw new Error(NO_ADAPTER);
  const requiredFeatures = FEATURES.filter((name) => adapter.features.has(name)) as GPUFeatureName[];
  const requiredLimits = Object.fromEntries(RAISED_LIMITS.map((name) => [name, adapter.limits[name]]));
  return { gpu: await adapter.requestDevice({ requiredFeatures, requiredLimits }), info: adapter.info };
}

export interface MatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** Returns the configurations of an adapter's matrix units. */
export function matrixConfigs(info: GPUAdapterInfo): MatrixConfig[] {
  const configs = (info as { readonly subgroupMatrixConfigs?: Iterable<MatrixConfig> }).subgroupMatrixConfigs;
  return [...(configs ?? [])].map(({ componentType, resultComponentType, M, N, K }) => ({
    componentType,
    resultComponentType,
    M,
    N,
    K,
  }));
}
