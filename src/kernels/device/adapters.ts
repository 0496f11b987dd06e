// Lists the adapters of this machine and chooses one of them.
//
// WebGPU returns one adapter per request and offers no list. Dawn's Node binding accepts a backend and a part of an
// adapter's name as flags of an instance. If no adapter has the name, Dawn rejects the request with a message that
// lists all adapters; there is no other way to get that list. Browsers have one adapter and accept no name.

import { NoDeviceError } from '../../errors.ts';
import type { GpuAdapter } from '../../host-types.ts';

/** An adapter as Dawn lists it. */
export interface AdapterEntry {
  /** The driver's name for it, such as "llvmpipe (LLVM 15.0.6, 256 bits)". */
  readonly name: string;
  /** The API that implements WebGPU: vulkan, metal, d3d12, ... */
  readonly backend: string;
}

/**
 * Runs a call into the driver. The command line passes a function that keeps drivers' own messages off standard error.
 */
export type DriverCall = <T>(call: () => T) => T;

const callDirectly: DriverCall = (call) => call();

/**
 * Features of Dawn that are switched on for the instance, the adapter and the device. Without them an NVIDIA card has no
 * `shader-f16`, because Dawn's own tests of it failed there, and no card has subgroup matrices. On Mesa 25.0.7 and
 * 26.2.6 and on SwiftShader, results have the same bytes with and without them, and on Mesa a UNet takes the same time.
 */
export const DAWN_FEATURES = [
  'allow_unsafe_apis',
  'use_vulkan_memory_model',
  'vulkan_enable_f16_on_nvidia',
] as const;

const TOGGLES = [
  `enable-dawn-features=${DAWN_FEATURES.join()}`,
  'disable-dawn-features=timestamp_quantization',
];

/** A name that no adapter has. */
const NO_SUCH_NAME = 'adapter=no adapter has this name';

const browserGpu = (): GPU | undefined => (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;

const instances = new Map<string, Promise<GPU>>();

/** Returns Dawn's entry point; the process keeps one instance per set of flags. */
function dawn(...flags: readonly string[]): Promise<GPU> {
  const key = flags.join('\n');
  let instance = instances.get(key);
  if (!instance) {
    instance = import('webgpu').then(
      ({ create, globals }) => {
        Object.assign(globalThis, globals);
        return create([...TOGGLES, ...flags]) as GPU;
      },
      (cause: unknown) => {
        throw new NoDeviceError(
          'the package webgpu could not be loaded: reinstall it with npm, or pass in a GPUDevice',
          { cause },
        );
      },
    );
    instances.set(key, instance);
  }
  return instance;
}

// Every request has the same preference, because it decides which adapter is first.
const request = (gpu: GPU, driverCall: DriverCall): Promise<GpuAdapter | null> =>
  driverCall(() => gpu.requestAdapter({ powerPreference: 'high-performance' }));

/** Parses the list of adapters from the message with which Dawn rejects an unknown name. */
export const parseAdapterList = (message: string): AdapterEntry[] =>
  [...message.matchAll(/^ \* backend: '([^']*)', name: '(.*)'$/gm)].map(([, backend = '', name = '']) => ({
    backend,
    name,
  }));

/** Lists Dawn's adapters in its order. The first is the default. */
async function listDawn(driverCall: DriverCall): Promise<AdapterEntry[]> {
  const gpu = await dawn(NO_SUCH_NAME);
  try {
    // If there is no adapter at all, Dawn rejects nothing and returns null.
    await request(gpu, driverCall);
    return [];
  } catch (error) {
    return parseAdapterList(error instanceof Error ? error.message : String(error));
  }
}

/**
 * Returns whether Dawn can open an entry of its list. Dawn opens the first adapter whose name contains the
 * requested one, so it cannot open the second of two identical cards.
 */
const isReachable = (entry: AdapterEntry, list: readonly AdapterEntry[]): boolean =>
  list.find(({ backend, name }) => backend === entry.backend && name.includes(entry.name)) === entry;

const openEntry = async ({ backend, name }: AdapterEntry, driverCall: DriverCall) =>
  request(await dawn(`backend=${backend}`, `adapter=${name}`), driverCall);

/**
 * Finds an entry of the list by its index (a number, or digits as text) or by its name or a part of it,
 * ignoring case. If several names contain that part, the first one is returned.
 * @throws NoDeviceError listing the adapters, if no entry matches or Dawn cannot open the one that does.
 */
export function chooseAdapter(list: readonly AdapterEntry[], chosen: number | string): AdapterEntry {
  const known = list.map(({ name }, i) => `${i} ${name}`).join(', ');
  const text = String(chosen).toLowerCase();
  const isIndex = typeof chosen === 'number' || /^\d+$/.test(text);
  const found = isIndex
    ? list[Number(text)]
    : (list.find(({ name }) => name.toLowerCase() === text) ??
      list.find(({ name }) => text !== '' && name.toLowerCase().includes(text)));
  if (!found)
    throw new NoDeviceError(
      `device: expected an index or a part of a name of ${known || 'the devices, and there are none'}, got "${chosen}"`,
    );
  if (!isReachable(found, list))
    throw new NoDeviceError(
      `device: "${chosen}" cannot be chosen, because an earlier device has the same name and WebGPU in Node tells devices apart by name only; hide the earlier one from the Vulkan loader instead (on Mesa: MESA_VK_DEVICE_SELECT)`,
    );
  return found;
}

/**
 * Finds the adapter that is chosen by index or name, or the best one if none is chosen. Returns null if this
 * machine has no adapter.
 * @throws NoDeviceError if the chosen adapter does not exist.
 */
export async function findAdapter(
  chosen: number | string | undefined,
  driverCall: DriverCall = callDirectly,
): Promise<GpuAdapter | null> {
  const browser = browserGpu();
  if (browser && chosen !== undefined && chosen !== 0)
    throw new NoDeviceError(`device: expected 0 (a browser offers one device only), got "${chosen}"`);
  if (browser) return request(browser, driverCall);
  if (chosen === undefined) return request(await dawn(), driverCall);
  const list = await listDawn(driverCall);
  return list.length === 0 ? null : openEntry(chooseAdapter(list, chosen), driverCall);
}

/** An adapter of the list; `adapter` is undefined if Dawn cannot open it (see `isReachable`). */
interface ListedAdapter extends AdapterEntry {
  readonly index: number;
  readonly adapter: GpuAdapter | undefined;
}

/** Lists the adapters of this machine. The first is the default. */
export async function listAdapters(driverCall: DriverCall = callDirectly): Promise<ListedAdapter[]> {
  const browser = browserGpu();
  if (browser) {
    const adapter = await request(browser, driverCall);
    return adapter ? [{ index: 0, name: adapterName(adapter.info), backend: 'browser', adapter }] : [];
  }
  const list = await listDawn(driverCall);
  const listed: ListedAdapter[] = [];
  for (const [index, entry] of list.entries()) {
    const adapter = isReachable(entry, list) ? await openEntry(entry, driverCall) : undefined;
    listed.push({ ...entry, index, adapter: adapter ?? undefined });
  }
  return listed;
}

/** Returns an adapter's short name for results and reports; browsers reveal only vendor and architecture. */
export const adapterName = ({
  vendor,
  architecture,
  device,
}: Readonly<Record<'vendor' | 'architecture' | 'device', string>>): string =>
  device.replace(/-+$/, '') || [vendor, architecture].filter(Boolean).join(' ') || 'unknown';
