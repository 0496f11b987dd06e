// `--mode support`: records what the adapters report about themselves, with the product's own flags of Dawn and with the
// flags that enable f16 and matrix units on NVIDIA.

import { type Capabilities, type Family, listDevices, openDevice } from '../../src/kernels/device/device.ts';
import { FAMILIES } from '../../src/kernels/device/families.ts';
import { adapterWith, EXTRA_FLAGS, type MatrixConfig, matrixConfigs, NO_ADAPTER, openWith } from '../dawn.ts';
import { messageOf, type Session, type Step } from './session.ts';

/** Returns the limits that have a value. */
const limitsOf = (limits: GPUSupportedLimits): Record<string, number> => {
  const found: Record<string, number> = {};
  for (const key in limits) {
    const value = limits[key as keyof GPUSupportedLimits];
    if (typeof value === 'number') found[key] = value;
  }
  return found;
};

interface AdapterReport {
  readonly info: Record<string, unknown>;
  readonly features: readonly string[];
  readonly limits: Record<string, number>;
  readonly subgroupMatrixConfigs: readonly MatrixConfig[];
}

function reportOf({ info, features, limits }: GPUAdapter): AdapterReport {
  const values: Record<string, unknown> = {};
  for (const key in info) {
    const value = (info as unknown as Record<string, unknown>)[key];
    if (['string', 'number', 'boolean'].includes(typeof value)) values[key] = value;
  }
  return {
    info: values,
    features: [...features].sort(),
    limits: limitsOf(limits),
    subgroupMatrixConfigs: matrixConfigs(info),
  };
}

/** Returns `true` for each family whose device opens, else the error. */
async function familiesOf(open: (family: Family) => Promise<Capabilities>): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {};
  for (const family of FAMILIES) {
    try {
      await open(family);
      found[family] = true;
    } catch (error) {
      found[family] = messageOf(error);
    }
  }
  return found;
}

/** Returns the result of `make`, or its error as `{ error }`, so that one failure does not hide the other reports. */
async function orError<T>(make: () => Promise<T> | T): Promise<T | { readonly error: string }> {
  try {
    return await make();
  } catch (error) {
    return { error: messageOf(error) };
  }
}

/** Reports the adapter and a device that Dawn gives with some flags. */
async function withFlags(flags: readonly string[]): Promise<unknown> {
  const adapter = await adapterWith(flags);
  if (!adapter) return { error: NO_ADAPTER };
  const report = reportOf(adapter);
  const device = await orError(async () => {
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
  return { flags, ...report, device };
}

/** Reports the devices with the product's flags and with the extra ones. */
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
    families: await orError(() => familiesOf(async (family) => (await session.device(family)).capabilities)),
  };
  step.keep(found);
  found.withProductFlags = await orError(() => withFlags(['disable-dawn-features=timestamp_quantization']));
  step.keep(found);
  found.withExtraFlags = await orError(() => withFlags(EXTRA_FLAGS));
  step.keep(found);
  found.adapters = await orError(() => listDevices());
  const extra = found.withExtraFlags as { readonly subgroupMatrixConfigs?: readonly MatrixConfig[] };
  for (const { componentType, resultComponentType, M, N, K } of extra.subgroupMatrixConfigs ?? [])
    step.say(`matrix units: ${componentType} -> ${resultComponentType}, M ${M}, N ${N}, K ${K}`);
  return found;
}
