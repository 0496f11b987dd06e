// Opening a device and knowing what it can do.

import { NoDeviceError } from './errors.ts';

/**
 * How a family's kernels share operands:
 * - `subgroup`: one subgroup a workgroup, operands broadcast from lane to lane, no workgroup memory; software adapters.
 * - `tile`: tiles staged through workgroup memory; GPUs.
 * - `plain`: registers only, no feature, WebGPU's default limits; runs everywhere and is the oracle of the others.
 */
export type Family = 'subgroup' | 'tile' | 'plain';

export interface Capabilities {
  readonly family: Family;
  /** Lanes of a subgroup where that number is fixed, else 0. */
  readonly subgroupSize: number;
  readonly f16: boolean;
  readonly timestamps: boolean;
  /** Bytes to which a storage binding's offset must be aligned. */
  readonly storageAlignment: number;
  readonly maxBindingBytes: number;
  readonly maxBufferBytes: number;
  readonly workgroupBytes: number;
  readonly maxInvocations: number;
  readonly maxStorageBuffers: number;
  /** What the adapter calls itself, for reports. */
  readonly description: string;
  readonly software: boolean;
}

export interface Device {
  readonly gpu: GPUDevice;
  readonly capabilities: Capabilities;
  /** Resolves with the reason when the device is lost, also by `close`. */
  readonly lost: Promise<GPUDeviceLostInfo>;
  /** True from the moment the device was found lost. */
  readonly isLost: () => boolean;
  /** Destroys the device, unless the host passed it in. */
  readonly close: () => void;
}

export interface DeviceOptions {
  /** The host's own device: used as it is, with whatever features and limits it has, and never destroyed. */
  readonly device?: GPUDevice;
  /** Forces a family (tests, benchmarks); the capability must be there. */
  readonly family?: Family;
}

const WANTED_FEATURES = ['subgroups', 'shader-f16', 'timestamp-query'] as const;
const WANTED_LIMITS = [
  'maxStorageBufferBindingSize',
  'maxBufferSize',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupSizeY',
  'maxStorageBuffersPerShaderStage',
] as const;

let nodeGpu: Promise<GPU> | undefined;

/** The browser's `navigator.gpu`, or Dawn through the `webgpu` package in Node (one instance a process). */
async function findGpu(): Promise<GPU> {
  const host = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
  if (host) return host;
  nodeGpu ??= import('webgpu').then(
    ({ create, globals }) => {
      Object.assign(globalThis, globals);
      return create(['disable-dawn-features=timestamp_quantization']) as GPU;
    },
    (cause: unknown) => {
      throw new NoDeviceError('the package webgpu could not be loaded; install it or pass in a GPUDevice', {
        cause,
      });
    },
  );
  return nodeGpu;
}

function capabilitiesOf(device: GPUDevice, info: GPUAdapterInfo, forced: Family | undefined): Capabilities {
  const { limits, features } = device;
  const fixed = info.subgroupMinSize === info.subgroupMaxSize ? (info.subgroupMaxSize ?? 0) : 0;
  const subgroupSize = features.has('subgroups') ? fixed : 0;
  const description = [info.vendor, info.architecture, info.device, info.description]
    .filter(Boolean)
    .join(' ');
  const software =
    /llvmpipe|lavapipe|swiftshader|software|\bcpu\b/i.test(description) || info.isFallbackAdapter === true;
  const hasBroadcast = subgroupSize >= 4 && subgroupSize <= 16;
  const family = forced ?? (hasBroadcast ? 'subgroup' : software ? 'plain' : 'tile');
  if (family === 'subgroup' && !hasBroadcast)
    throw new NoDeviceError(
      `the subgroup family needs subgroups of a fixed 4 to 16 lanes; ${description || 'this adapter'} has ${info.subgroupMinSize} to ${info.subgroupMaxSize}`,
    );
  return {
    family,
    subgroupSize,
    f16: features.has('shader-f16'),
    timestamps: features.has('timestamp-query'),
    storageAlignment: limits.minStorageBufferOffsetAlignment,
    maxBindingBytes: Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize),
    maxBufferBytes: limits.maxBufferSize,
    workgroupBytes: limits.maxComputeWorkgroupStorageSize,
    maxInvocations: limits.maxComputeInvocationsPerWorkgroup,
    maxStorageBuffers: limits.maxStorageBuffersPerShaderStage,
    description,
    software,
  };
}

/**
 * Opens the best adapter with its real limits, or wraps the host's own device.
 * @throws NoDeviceError where there is no adapter, or the forced family is not possible on it.
 */
export async function openDevice(options: DeviceOptions = {}): Promise<Device> {
  const { device: own, family } = options;
  let gpu: GPUDevice;
  let info: GPUAdapterInfo;
  if (own) {
    gpu = own;
    info = own.adapterInfo;
  } else {
    const adapter = await (await findGpu()).requestAdapter({ powerPreference: 'high-performance' });
    if (!adapter)
      throw new NoDeviceError(
        'no WebGPU adapter was found: install a graphics driver, or a software Vulkan driver (Debian: mesa-vulkan-drivers)',
      );
    info = adapter.info;
    gpu = await adapter.requestDevice({
      label: 'diffclass-stream',
      requiredFeatures: WANTED_FEATURES.filter((feature) => adapter.features.has(feature)),
      requiredLimits: Object.fromEntries(WANTED_LIMITS.map((limit) => [limit, adapter.limits[limit]])),
    });
  }
  let lost = false;
  const lostInfo = gpu.lost.then((reason) => {
    lost = true;
    return reason;
  });
  return {
    gpu,
    capabilities: capabilitiesOf(gpu, info, family),
    lost: lostInfo,
    isLost: () => lost,
    close: () => {
      if (!own) gpu.destroy();
    },
  };
}
