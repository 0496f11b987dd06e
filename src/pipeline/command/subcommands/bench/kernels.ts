// `bench kernels`: how fast is every kernel on this device, and what share of the device's measured peak is that?

import { BUILDERS } from '../../../../bench/builders.ts';
import type { BenchCase } from '../../../../bench/case.ts';
import type { CaseOption, CaseOptions } from '../../../../bench/case-options.ts';
import { benchCase, benchCases } from '../../../../bench/cases.ts';
import { disturbanceText, kernelTable } from '../../../../bench/kernel-table.ts';
import { measurePeak } from '../../../../bench/peak.ts';
import type { BenchResult } from '../../../../bench/report.ts';
import { timeCase, titleOf } from '../../../../bench/time-case.ts';
import { ShapeError, UsageError } from '../../../../errors.ts';
import type { Device } from '../../../../kernels/device/device.ts';
import { longFlag } from '../../../option.ts';
import { OPTIONS, type OptionName, type Values } from '../../options/table.ts';
import type { Surroundings } from '../../shared/subcommand.ts';
import { streamWriter } from '../../shared/writers.ts';
import { beginReport } from './progress-report.ts';

/** The options of a case of one's own besides its shape. */
export const CASE_OPTIONS = [
  'channels',
  'kernel',
  'stride',
  'groups',
  'heads',
  'keys',
  'entries',
  'activation',
  'weights',
  'residual',
  'causal',
  'compact',
] as const satisfies readonly (CaseOption & OptionName)[];

export const KERNELS = [
  'ops',
  'match',
  'families',
  'repetitions',
  'list',
  'json',
  'shape',
  ...CASE_OPTIONS,
] as const satisfies readonly OptionName[];

export type KernelSettings = Values<(typeof KERNELS)[number]>;

/** Returns the cases that the options choose. @throws UsageError if they choose none, or an op cannot have such a case. */
export function chosenCases(settings: KernelSettings): readonly BenchCase[] {
  const { ops, match, shape } = settings;
  const given = CASE_OPTIONS.filter((name) => settings[name] !== undefined);
  if (shape) {
    const [op] = ops ?? [];
    if (!op || ops!.length > 1) throw new UsageError('--shape: expected exactly one --op as well');
    const { uses } = BUILDERS[op];
    const stray = given.find((name) => !uses.includes(name));
    if (stray)
      throw new UsageError(
        `${longFlag(OPTIONS[stray])}: ${op} does not use it; ${usedText(CASE_OPTIONS.filter((name) => uses.includes(name)))}`,
      );
    const options = Object.fromEntries(given.map((name) => [name, settings[name]])) as CaseOptions;
    try {
      return [benchCase(op, shape, options)];
    } catch (error) {
      if (error instanceof ShapeError) throw new UsageError(`--shape: ${error.message}`);
      throw error;
    }
  }
  if (given.length > 0)
    throw new UsageError(`${longFlag(OPTIONS[given[0]!])}: belongs to --shape, which was not given`);
  const chosen = benchCases().filter(
    (one) => (!ops || ops.includes(one.op)) && (match === undefined || titleOf(one).includes(match)),
  );
  if (chosen.length === 0)
    throw new UsageError(`--match: expected a part of a line that --list prints, got "${match}"`);
  return chosen;
}

const usedText = (names: readonly (typeof CASE_OPTIONS)[number][]): string =>
  names.length === 0
    ? 'it uses --shape alone'
    : `it uses ${names.map((name) => longFlag(OPTIONS[name])).join(', ')}`;

/** Opens a device for each family, or one with the device's own. */
async function openDevices(
  families: KernelSettings['families'],
  openDevice: Surroundings['openDevice'],
): Promise<Device[]> {
  const devices: Device[] = [];
  try {
    for (const family of families ?? [undefined]) devices.push(await openDevice(family ? { family } : {}));
    return devices;
  } catch (error) {
    for (const device of devices) device.close();
    throw error;
  }
}

/** Times the chosen cases. Returns the exit status: 0, or 1 if a case could not run. */
export async function benchKernels(settings: KernelSettings, surroundings: Surroundings): Promise<number> {
  const cases = chosenCases(settings);
  const names = cases.map(titleOf);
  if (settings.list) {
    await streamWriter(surroundings.stdout).write(names.map((name) => `${name}\n`).join(''));
    return 0;
  }
  const { repetitions, json } = settings;
  const devices = await openDevices(settings.families, surroundings.openDevice);
  try {
    const { description, software } = devices[0]!.capabilities;
    const families = devices.map(({ capabilities }) => capabilities.family);
    const peak = await measurePeak(devices[0]!, repetitions);
    const table = kernelTable(names, families, { peak, software });
    const report = beginReport(surroundings, json, {
      bench: 'kernels',
      device: description,
      families,
      repetitions,
      peak,
    });
    await report.add(
      [],
      `${description}, ${families.length > 1 ? 'families' : 'family'} ${families.join(', ')}
peak: ${peak.gflops.toFixed(1)} GFLOP/s in registers, ${peak.gbytes.toFixed(1)} GB/s copied; medians of ${repetitions} by the clock

${table.titles}\n`,
    );
    for (const one of cases) {
      if (report.unread) break;
      const results: BenchResult[] = [];
      for (const device of devices) results.push(await timeCase(device, one, repetitions));
      await report.add(results, `${table.line(results)}\n`);
    }
    const warning = disturbanceText(report.results);
    if (warning !== undefined) surroundings.reporter.log('warn', warning);
    return report.results.some(({ error }) => error !== undefined) ? 1 : 0;
  } finally {
    for (const device of devices) device.close();
  }
}
