// `--mode support`: records what the adapters report about themselves, and the device that the product opens.

import { findAdapter } from '../../src/kernels/device/adapters.ts';
import { type Capabilities, type Family, listDevices } from '../../src/kernels/device/device.ts';
import { FAMILIES } from '../../src/kernels/device/families.ts';
import type { MatrixConfig } from '../../src/kernels/device/matrix-units.ts';
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

/** Copies the configurations of an adapter's matrix units, whose values are getters. */
function configsOf(info: object): MatrixConfig[] {
  const { subgroupMatrixConfigs = [] } = info as { readonly subgroupMatrixConfigs?: Iterable<MatrixConfig> };
  return [...subgroupMatrixConfigs].map(({ componentType, resultComponentType, M, N, K }) => ({
    componentType,
    resultComponentType,
    M,
    N,
    K,
  }));
}

interface AdapterReport {
  readonly info: Record<string, unknown>;
  readonly features: readonly string[];
  readonly limits: Record<string, number>;
  /** All configurations of matrix units. The product uses those that multiply f16 and sum in f32. */
  readonly subgroupMatrixConfigs: readonly MatrixConfig[];
}

function reportOf({
  info,
  features,
  limits,
}: Pick<GPUAdapter, 'info' | 'features' | 'limits'>): AdapterReport {
  const values: Record<string, unknown> = {};
  for (const key in info) {
    const value = (info as unknown as Record<string, unknown>)[key];
    if (['string', 'number', 'boolean'].includes(typeof value)) values[key] = value;
  }
  return {
    info: values,
    features: [...features].sort(),
    limits: limitsOf(limits),
    subgroupMatrixConfigs: configsOf(info),
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

/** Records the adapters of this machine, the first one in detail, and the device that the product opens on it. */
export async function support(session: Session, step: Step): Promise<unknown> {
  const { capabilities, name, gpu } = await session.device();
  step.say(`${name}: ${capabilities.description}`);
  step.say(
    `family ${capabilities.family}, f16 ${capabilities.f16}, timestamps ${capabilities.timestamps}, bindings of ${(capabilities.maxBindingBytes / 2 ** 20).toFixed(0)} MiB`,
  );
  const found: Record<string, unknown> = {
    name,
    capabilities,
    features: [...gpu.features].sort(),
    limits: limitsOf(gpu.limits),
    families: await orError(() => familiesOf(async (family) => (await session.device(family)).capabilities)),
  };
  step.keep(found);
  found.adapter = await orError(async () => {
    const adapter = await findAdapter(undefined);
    return adapter ? reportOf(adapter) : { error: 'no adapter' };
  });
  step.keep(found);
  found.adapters = await orError(() => listDevices());
  for (const { M, N, K } of capabilities.matrix ?? [])
    step.say(`matrix units: f16 -> f32, M ${M}, N ${N}, K ${K}`);
  return found;
}
