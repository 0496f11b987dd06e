// Which adapters this machine has, and how one of them is chosen.
//
// WebGPU itself gives one adapter per request and no list. Dawn's Node binding takes a backend and a part of an
// adapter's name as flags of an instance, and a name that no adapter has makes it reject with the list of all: that
// list is the only one there is. Browsers have one adapter and take no name.

import { NoDeviceError } from '../../errors.ts';
import type { GpuAdapter } from '../../host-types.ts';

/** An adapter as Dawn lists it. */
export interface AdapterEntry {
  /** The driver's name for it, such as "llvmpipe (LLVM 15.0.6, 256 bits)". */
  readonly name: string;
  /** The API beneath WebGPU: vulkan, metal, d3d12, ... */
  readonly backend: string;
}

/**
 * Runs a call into the driver. The command line passes a function that keeps what drivers print themselves off
 * standard error.
 */
export type DriverCall = <T>(call: () => T) => T;

const callDirectly: DriverCall = (call) => call();

const TOGGLES = 'disable-dawn-features=timestamp_quantization';

/** A name that no adapter has. */
const NO_SUCH_NAME = 'adapter=no adapter has this name';

const browserGpu = (): GPU | undefined => (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;

const instances = new Map<string, Promise<GPU>>();

/** Dawn's entry point, one instance per set of flags and process. */
function dawn(...flags: readonly string[]): Promise<GPU> {
  const key = flags.join('\n');
  let instance = instances.get(key);
  if (!instance) {
    instance = import('webgpu').then(
      ({ create, globals }) => {
        Object.assign(globalThis, globals);
        return create([TOGGLES, ...flags]) as GPU;
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

// The same preference everywhere: it decides on the order of the list, and so on which adapter is the first.
const request = (gpu: GPU, driverCall: DriverCall): Promise<GpuAdapter | null> =>
  driverCall(() => gpu.requestAdapter({ powerPreference: 'high-performance' }));

/** Reads Dawn's list of adapters out of the message that it rejects an unknown name with. */
export const parseAdapterList = (message: string): AdapterEntry[] =>
  [...message.matchAll(/^ \* backend: '([^']*)', name: '(.*)'$/gm)].map(([, backend = '', name = '']) => ({
    backend,
    name,
  }));

/** Lists the adapters of Dawn in its order: the first is the one that is taken when none is chosen. */
async function listDawn(driverCall: DriverCall): Promise<AdapterEntry[]> {
  const gpu = await dawn(NO_SUCH_NAME);
  try {
    // Where there is no adapter at all, nothing is rejected and null comes back.
    await request(gpu, driverCall);
    return [];
  } catch (error) {
    return parseAdapterList(error instanceof Error ? error.message : String(error));
  }
}

/**
 * Whether Dawn can be asked for an entry of its list. It takes the first adapter whose name contains the one asked
 * for, so that the second of two equal cards is out of its reach.
 */
const isReachable = (entry: AdapterEntry, list: readonly AdapterEntry[]): boolean =>
  list.find(({ backend, name }) => backend === entry.backend && name.includes(entry.name)) === entry;

const openEntry = async ({ backend, name }: AdapterEntry, driverCall: DriverCall) =>
  request(await dawn(`backend=${backend}`, `adapter=${name}`), driverCall);

/**
 * Finds the entry that is meant by an index of the list (a number, also as text), or by a name or a part of one in any
 * case; the first, if several names have that part.
 * @throws NoDeviceError listing the adapters, if none is meant or the one that is cannot be asked for.
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
      `device: expected an index or a part of a name of ${known || 'the devices, and there are none'}; got "${chosen}"`,
    );
  if (!isReachable(found, list))
    throw new NoDeviceError(
      `device: "${chosen}" cannot be chosen, because an earlier device has the same name and WebGPU in Node tells devices apart by name only; hide the earlier one from the Vulkan loader instead (on Mesa: MESA_VK_DEVICE_SELECT)`,
    );
  return found;
}

/**
 * Finds the best adapter, or the one that is chosen by index or name; null if this machine has none.
 * @throws NoDeviceError if the one that is chosen is not there.
 */
export async function findAdapter(
  chosen: number | string | undefined,
  driverCall: DriverCall = callDirectly,
): Promise<GpuAdapter | null> {
  const browser = browserGpu();
  if (browser && chosen !== undefined && chosen !== 0)
    throw new NoDeviceError(`device: a browser offers one device only, index 0; got "${chosen}"`);
  if (browser) return request(browser, driverCall);
  if (chosen === undefined) return request(await dawn(), driverCall);
  const list = await listDawn(driverCall);
  return list.length === 0 ? null : openEntry(chooseAdapter(list, chosen), driverCall);
}

/** An adapter of the list; `adapter` is undefined if it cannot be asked for (see `chooseAdapter`). */
export interface ListedAdapter extends AdapterEntry {
  readonly index: number;
  readonly adapter: GpuAdapter | undefined;
}

/** Lists the adapters of this machine; the first is the one that is taken when none is chosen. */
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

/** The short name of an adapter for results and reports; browsers only tell vendor and architecture. */
export const adapterName = ({
  vendor,
  architecture,
  device,
}: {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
}): string => device.replace(/-+$/, '') || [vendor, architecture].filter(Boolean).join(' ') || 'unknown';
