// `--mode support`: what the adapters say of themselves, with the product's own flags of Dawn and with the flags that
// give it f16 and matrix units on NVIDIA.

import { type Capabilities, type Family, listDevices, openDevice } from '../../src/kernels/device/device.ts';
import { adapterWith, EXTRA_FLAGS, type MatrixConfig, matrixConfigs, openWith } from '../dawn.ts';
import { messageOf, type Session, type Step } from './session.ts';

/** Limits without the ones that a device refuses to be asked for. */
const limitsOf = (limits: GPUSupportedLimits): Record<string, number> => {
  const found: Record<string, number> = {};
  for (const key in limits) {
    const value = limits[key as keyof GPUSupportedLimits];
    if (typeof value === 'number') found[key] = value;
  }
  return found;
};

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
