// Opens a device and describes its capabilities.

import { NoDeviceError } from '../../errors.ts';
import type { GpuDevice, GpuDeviceLostInfo } from '../../host-types.ts';
import { adapterName, type DriverCall, findAdapter, listAdapters } from './adapters.ts';
import { type Family, NEEDS, RUNS_ON } from './families.ts';
import { knownDevice } from './known-tiles.ts';
import type { Launch } from './launch.ts';
import { MATRIX_FEATURE, type MatrixUnit, matrixUnits } from './matrix-units.ts';
import type { Tiles } from './shape-class.ts';

export type { Family } from './families.ts';

export interface Capabilities {
  readonly family: Family;
  /** Lanes of a subgroup if that number is fixed, else 0. */
  readonly subgroupSize: number;
  /** The most lanes that a subgroup may have; 0 without subgroups. Default: `subgroupSize`. */
  readonly subgroupMaxSize?: number;
  /** Matrix units with f16 factors and f32 sums; undefined or empty if the device has none. */
  readonly matrix?: readonly MatrixUnit[];
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
  /**
   * Tiles that are known to be the fastest on this device: those that are shipped for its architecture, and in a
   * `tunedDevice` those that were found on it. Without them every kernel's own rule decides.
   */
  readonly tiles?: Tiles;
}

/** How many of the pipelines requested so far have been compiled. */
export interface CompileProgress {
  readonly done: number;
  readonly total: number;
}

export interface Device {
  readonly gpu: GpuDevice;
  /** The adapter's short name, for results and reports. */
  readonly name: string;
  readonly capabilities: Capabilities;
  /** Resolves with the reason when the device is lost, which includes a call of `close`. */
  readonly lost: Promise<GpuDeviceLostInfo>;
  /** Returns whether the device is known to be lost. */
  readonly isLost: () => boolean;
  /** Destroys the device, unless the host passed it in. */
  readonly close: () => void;
  /** See `DeviceOptions.onCompile`. */
  readonly onCompile?: ((progress: CompileProgress) => void) | undefined;
  /**
   * Returns launches with the tiles that are the fastest on this device, after a search for those that are not known
   * yet. It runs the launches, so no result of a run may be in their memory. Absent if the device does not search.
   */
  readonly tune?: (launches: readonly Launch[]) => Promise<readonly Launch[]>;
}

export interface DeviceOptions {
  /** The host's own device. It is used with the features and limits that it has, and never destroyed. */
  readonly device?: GpuDevice;
  /**
   * Chooses an adapter by its index in `listDevices`, its name or a part of its name; default: the first.
   * Dawn identifies adapters by name only, so the second of two identical cards cannot be chosen.
   */
  readonly adapter?: number | string;
  /** Forces a family (tests, benchmarks) that the device must be able to run. */
  readonly family?: Family;
  /** Called with the progress of compilation whenever a pipeline has been requested or is ready. */
  readonly onCompile?: (progress: CompileProgress) => void;
  /** See `DriverCall`. */
  readonly driverCall?: DriverCall;
}

/** Requested if the adapter has them. The types of WebGPU do not know Dawn's experimental feature. */
const OPTIONAL_FEATURES = [
  'subgroups',
  'shader-f16',
  'timestamp-query',
  MATRIX_FEATURE,
] as readonly string[] as readonly GPUFeatureName[];
/** The limits that a device is requested with at the adapter's own values. */
export const RAISED_LIMITS = [
  'maxStorageBufferBindingSize',
  'maxBufferSize',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupSizeY',
  'maxStorageBuffersPerShaderStage',
] as const;

/**
 * Returns the capabilities of a device, or those that the device of an adapter will have: `openDevice`
 * requests the adapter's own limits.
 */
function capabilitiesOf(
  device: Pick<GPUDevice, 'limits' | 'features'>,
  info: GPUAdapterInfo,
  forced?: Family,
): Capabilities {
  const { limits, features } = device;
  const fixed = info.subgroupMinSize === info.subgroupMaxSize ? (info.subgroupMaxSize ?? 0) : 0;
  const subgroups = features.has('subgroups');
  const subgroupSize = subgroups ? fixed : 0;
  const f16 = features.has('shader-f16');
  const usesMatrix = subgroups && f16 && (features as ReadonlySet<string>).has(MATRIX_FEATURE);
  const matrix = usesMatrix ? matrixUnits(info) : [];
  const description = [info.vendor, info.architecture, info.device, info.description]
    .filter(Boolean)
    .join(' ');
  const software =
    /llvmpipe|lavapipe|swiftshader|software|\bcpu\b/i.test(description) || info.isFallbackAdapter === true;
  const family = forced ?? (RUNS_ON.subgroup({ subgroupSize }) ? 'subgroup' : software ? 'plain' : 'tile');
  const known = knownDevice(description);
  if (!RUNS_ON[family]({ subgroupSize, matrix }))
    throw new NoDeviceError(
      `the ${family} family needs ${NEEDS[family]}; ${description || 'this adapter'} has subgroups of ${info.subgroupMinSize} to ${info.subgroupMaxSize} lanes and ${matrix.length} such matrix units`,
    );
  return {
    family,
    subgroupSize,
    subgroupMaxSize: subgroups ? (info.subgroupMaxSize ?? 0) : 0,
    matrix,
    f16,
    timestamps: features.has('timestamp-query'),
    storageAlignment: limits.minStorageBufferOffsetAlignment,
    maxBindingBytes: Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize),
    maxBufferBytes: limits.maxBufferSize,
    workgroupBytes: limits.maxComputeWorkgroupStorageSize,
    maxInvocations: limits.maxComputeInvocationsPerWorkgroup,
    maxStorageBuffers: limits.maxStorageBuffersPerShaderStage,
    description,
    software,
    ...(known && { tiles: known.tiles }),
  };
}

/** Returns the error for a machine without an adapter; it refers to the doctor. */
const noAdapter = (): NoDeviceError =>
  new NoDeviceError(
    typeof process !== 'undefined' && process.versions?.node
      ? 'no WebGPU device was found: "npx diffclass-stream doctor" says why, and "npx diffclass-stream doctor --fix" installs a software Vulkan driver on Debian and Ubuntu'
      : 'no WebGPU device was found: this browser offers no adapter',
  );

/** A device of this machine, before it is opened. */
export interface DeviceSummary {
  /** The index that `DeviceOptions.adapter` accepts; 0 is the default device. */
  readonly index: number;
  /** The driver's name for the device. */
  readonly name: string;
  /** The API that implements WebGPU: vulkan, metal, d3d12, ... */
  readonly backend: string;
  readonly vendor: string;
  readonly architecture: string;
  /**
   * The capabilities, except the alignment, which is known only after opening, and the tiles. Undefined if the device
   * cannot be chosen because an earlier one has the same name.
   */
  readonly capabilities: Omit<Capabilities, 'storageAlignment' | 'tiles'> | undefined;
}

/** Lists the devices of this machine without opening any. */
export async function listDevices({
  driverCall,
}: Pick<DeviceOptions, 'driverCall'> = {}): Promise<DeviceSummary[]> {
  const listed = await listAdapters(driverCall);
  return listed.map(({ index, name, backend, adapter }) => {
    const { vendor = '', architecture = '' } = adapter?.info ?? {};
    const known = { index, name, backend, vendor, architecture };
    if (!adapter) return { ...known, capabilities: undefined };
    const {
      storageAlignment: _alignment,
      tiles: _tiles,
      ...capabilities
    } = capabilitiesOf(adapter, adapter.info);
    return { ...known, capabilities };
  });
}

/** The information of the adapters of devices that were opened here: a device's own lacks its matrix units in Dawn. */
const adapterInfos = new WeakMap<GpuDevice, GPUAdapterInfo>();

async function openAdapter({ adapter: chosen, driverCall }: DeviceOptions) {
  const adapter = await findAdapter(chosen, driverCall);
  if (!adapter) throw noAdapter();
  const { info } = adapter;
  const open = () =>
    adapter.requestDevice({
      label: 'diffclass-stream',
      requiredFeatures: OPTIONAL_FEATURES.filter((feature) => adapter.features.has(feature)),
      requiredLimits: Object.fromEntries(RAISED_LIMITS.map((limit) => [limit, adapter.limits[limit]])),
    });
  try {
    const gpu = await (driverCall ? driverCall(open) : open());
    adapterInfos.set(gpu, info);
    return { gpu, info };
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new NoDeviceError(`${adapterName(info)} could not be opened: ${reason}`, { cause });
  }
}

/**
 * Opens the chosen adapter (default: the best one) with all its limits, or wraps the host's own device.
 * @throws NoDeviceError if there is no adapter, the chosen one does not exist, or it cannot run the forced family.
 */
export async function openDevice(options: DeviceOptions = {}): Promise<Device> {
  const { device: own, family, onCompile } = options;
  const { gpu, info } = own
    ? { gpu: own, info: adapterInfos.get(own) ?? own.adapterInfo }
    : await openAdapter(options);
  let lost = false;
  const lostInfo = gpu.lost.then((reason) => {
    lost = true;
    return reason;
  });
  return {
    gpu,
    name: adapterName(info),
    capabilities: capabilitiesOf(gpu, info, family),
    lost: lostInfo,
    isLost: () => lost,
    close: () => {
      if (!own) gpu.destroy();
    },
    onCompile,
  };
}
