// `--mode support`: what the adapters say of themselves, with the product's own flags of Dawn and with the flags that
// give it f16 and matrix units on NVIDIA.

import { type Capabilities, type Family, listDevices, openDevice } from '../../src/kernels/device/device.ts';
import { messageOf, type Session, type Step } from './session.ts';

/** Dawn's flags for f16 on NVIDIA and for subgroup matrices; dawn.node passes them on at every stage. */
export const EXTRA_FLAGS = [
  'enable-dawn-features=allow_unsafe_apis,use_vulkan_memory_model,vulkan_enable_f16_on_nvidia',
  'disable-dawn-features=timestamp_quantization',
] as const;

/** The same without checks of indices and zeros in workgroup memory: what those cost. */
export const UNCHECKED_FLAGS = [
  'enable-dawn-features=allow_unsafe_apis,use_vulkan_memory_model,vulkan_enable_f16_on_nvidia,disable_robustness,disable_workgroup_init,disable_polyfills_on_integer_div_and_mod',
  'disable-dawn-features=timestamp_quantization',
] as const;

const FEATURES = [
  'subgroups',
  'shader-f16',
  'timestamp-query',
  'chromium-experimental-subgroup-matrix',
  'subgroup-size-control',
];

/** Opens a Dawn instance with flags of its own, and its first adapter. */
export async function adapterWith(flags: readonly string[]): Promise<GPUAdapter | null> {
  const { create, globals } = await import('webgpu');
  Object.assign(globalThis, globals);
  const gpu = create([...flags]) as GPU;
  keepAlive.push(gpu);
  return gpu.requestAdapter({ powerPreference: 'high-performance' });
}

/** An instance that is collected takes its adapters and devices with it. */
const keepAlive: GPU[] = [];

/** Limits without the ones that a device refuses to be asked for. */
const limitsOf = (limits: GPUSupportedLimits): Record<string, number> => {
  const found: Record<string, number> = {};
  for (const key in limits) {
    const value = limits[key as keyof GPUSupportedLimits];
    if (typeof value === 'number') found[key] = value;
  }
  return found;
};

/** Opens a device of an adapter with every feature of use to kernels and all its limits. */
export async function openWith(
  flags: readonly string[],
): Promise<{ readonly gpu: GPUDevice; readonly info: GPUAdapterInfo }> {
  const adapter = await adapterWith(flags);
  if (!adapter) throw new Error('no adapter with these flags');
  const requiredFeatures = FEATURES.filter((name) => adapter.features.has(name)) as GPUFeatureName[];
  const wanted = [
    'maxStorageBufferBindingSize',
    'maxBufferSize',
    'maxComputeWorkgroupStorageSize',
    'maxComputeInvocationsPerWorkgroup',
    'maxComputeWorkgroupSizeX',
    'maxComputeWorkgroupSizeY',
    'maxStorageBuffersPerShaderStage',
  ] as const;
  const requiredLimits = Object.fromEntries(wanted.map((name) => [name, adapter.limits[name]]));
  // The device's own `adapterInfo` leaves out the matrix configurations.
  return { gpu: await adapter.requestDevice({ requiredFeatures, requiredLimits }), info: adapter.info };
}

export interface MatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** The shapes of an adapter's matrix units. */
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

interface AdapterFacts {
  readonly info: Record<string, unknown>;
  readonly features: readonly string[];
  readonly limits: Record<string, number>;
  readonly subgroupMatrixConfigs: readonly MatrixConfig[];
}

function factsOf({ info, features, limits }: GPUAdapter): AdapterFacts {
  const told: Record<string, unknown> = {};
  for (const key in info) {
    const value = (info as unknown as Record<string, unknown>)[key];
    if (['string', 'number', 'boolean'].includes(typeof value)) told[key] = value;
  }
  return {
    info: told,
    features: [...features].sort(),
    limits: limitsOf(limits),
    subgroupMatrixConfigs: matrixConfigs(info),
  };
}

async function familiesOf(open: (family: Family) => Promise<Capabilities>): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {};
  for (const family of ['plain', 'tile', 'subgroup'] as const) {
    try {
      await open(family);
      found[family] = true;
    } catch (error) {
      found[family] = messageOf(error);
    }
  }
  return found;
}

/** Runs `make`, or gives its error in its place: one thing that cannot be told must not hide the others. */
async function told<T>(make: () => Promise<T> | T): Promise<T | { readonly error: string }> {
  try {
    return await make();
  } catch (error) {
    return { error: messageOf(error) };
  }
}

async function withFlags(flags: readonly string[]): Promise<unknown> {
  const adapter = await adapterWith(flags);
  if (!adapter) return { error: 'no adapter with these flags' };
  const facts = factsOf(adapter);
  const device = await told(async () => {
    const { gpu: made } = await openWith(flags);
    const { capabilities } = await openDevice({ device: made });
    const opened = {
      features: [...made.features].sort(),
      limits: limitsOf(made.limits),
      capabilities,
      families: await familiesOf(async (family) => (await openDevice({ device: made, family })).capabilities),
    };
    made.destroy();
    return opened;
  });
  return { flags, ...facts, device };
}

export async function support(session: Session, step: Step): Promise<unknown> {
  const product = await session.device();
  const { capabilities, name } = product;
  step.say(`${name}: ${capabilities.description}`);
  step.say(
    `family ${capabilities.family}, f16 ${capabilities.f16}, timestamps ${capabilities.timestamps}, bindings of ${(capabilities.maxBindingBytes / 2 ** 20).toFixed(0)} MiB`,
  );
  const found: Record<string, unknown> = {
    name,
    capabilities,
    features: [...product.gpu.features].sort(),
    limits: limitsOf(product.gpu.limits),
    families: await told(() => familiesOf(async (family) => (await session.device(family)).capabilities)),
  };
  step.keep(found);
  found.withProductFlags = await told(() => withFlags(['disable-dawn-features=timestamp_quantization']));
  step.keep(found);
  found.withExtraFlags = await told(() => withFlags(EXTRA_FLAGS));
  step.keep(found);
  found.adapters = await told(() => listDevices());
  const extra = found.withExtraFlags as { readonly subgroupMatrixConfigs?: readonly MatrixConfig[] };
  for (const { componentType, resultComponentType, M, N, K } of extra.subgroupMatrixConfigs ?? [])
    step.say(`matrix units: ${componentType} -> ${resultComponentType}, M ${M}, N ${N}, K ${K}`);
  return found;
}
