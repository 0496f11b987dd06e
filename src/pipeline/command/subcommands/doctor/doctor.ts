// `doctor`: lists the devices, checks everything that a run needs, and suggests what helps.

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { installDriver } from '../../../../install-driver.mjs';
import type { DeviceSummary } from '../../../../kernels/device/device.ts';
import { type OptionName, readOptions, type Values } from '../../options/table.ts';
import { modelFolder, SHIPPED } from '../../shared/model-folder.ts';
import { bytes, type Reporter } from '../../shared/progress.ts';
import type { Subcommand, Surroundings } from '../../shared/subcommand.ts';
import { writeReport } from '../../shared/writers.ts';
import { type Check, checksOf, runCheck, statusOfChecks } from './machine-checks.ts';
import { gatherInfo, type MachineInfo, runOwn } from './machine-info.ts';

const DOCTOR = [
  'model',
  'device',
  'precision',
  'fix',
  'run',
  'reportFormat',
] as const satisfies readonly OptionName[];

type DoctorSettings = Values<(typeof DOCTOR)[number]>;

const HELP = `
WebGPU in Node tells devices apart by their names: of two devices of the same name only the first can be chosen.
--fix installs a software Vulkan driver with apt on Debian and Ubuntu, as root or with sudo without a password, and
only if no device is found.

Exit status: 0 all is well, 2 Node is too old, 3 the model is invalid, 4 no usable device.
`;

/** Seconds that the sample image may take, without --run and with it. */
const PATIENCE = 5;
const RUN_LIMIT = 600;

/** Classifies a sample image with the command itself, in a process of its own. */
async function classifySample({ device, precision, run }: DoctorSettings, folder: string): Promise<Check[]> {
  const samples = join(SHIPPED, 'fashion-mnist', 'samples');
  const [name] = (await readdir(samples).catch(() => [])).sort();
  if (name === undefined) return [];
  const chosen = ['--precision', precision, ...(device === undefined ? [] : ['--device', device])];
  const options = ['--quiet', '--format', 'jsonl', '--model', folder, ...chosen];
  const limit = run ? RUN_LIMIT : PATIENCE;
  const began = performance.now();
  const end = runOwn('../../cli', ['classify', '--no-tune', ...options, join(samples, name)], limit * 1000);
  return [runCheck(end, (performance.now() - began) / 1000, limit)];
}

/** Judges the machine as it is now. */
async function examine(
  settings: DoctorSettings,
  folder: string,
  describe: Surroundings['describe'],
): Promise<{ readonly info: MachineInfo; readonly checks: readonly Check[] }> {
  const info = await gatherInfo(settings.device, () => describe(folder));
  const checks = checksOf(info);
  // A text model has no classes of its own to choose between.
  const runs = statusOfChecks(checks) === 0 && info.model.model?.conditioning === 'class';
  return { info, checks: runs ? [...checks, ...(await classifySample(settings, folder))] : checks };
}

/** Installs a driver if no device was found and a driver may help. Returns what was done, one sentence per step. */
function fix({ probe, vulkan, plan }: MachineInfo, reporter: Reporter): string[] {
  if (!plan || (probe?.devices.length ?? 0) > 0) return [];
  if (vulkan && vulkan.missing.length > 0) return [];
  const done: string[] = [];
  const problem = installDriver(
    (text) => {
      done.push(text);
      reporter.log('info', text);
    },
    { live: false },
  );
  if (problem !== undefined) reporter.log('warn', `no driver was installed: ${problem}`);
  return done;
}

function deviceText({ index, name, backend, vendor, architecture, capabilities }: DeviceSummary): string {
  const kind = [backend, vendor, architecture].filter(Boolean).join(', ');
  const first = `  ${index}  ${name} (${kind})\n`;
  if (!capabilities) return `${first}     cannot be chosen: an earlier device has the same name\n`;
  const { description, software, family, subgroupSize, f16, timestamps } = capabilities;
  const features = [
    software ? 'in software' : 'hardware',
    `kernels of the family ${family}`,
    subgroupSize > 0 ? `subgroups of ${subgroupSize}` : 'no subgroups of a fixed size',
    f16 ? 'f16' : 'no f16',
    timestamps ? 'timestamps' : 'no timestamps',
  ];
  const limits = [
    `buffers of ${bytes(capabilities.maxBufferBytes)}`,
    `${bytes(capabilities.maxBindingBytes)} bound at once`,
    `${capabilities.maxStorageBuffers} buffers per kernel`,
    `workgroups of ${capabilities.maxInvocations} and ${bytes(capabilities.workgroupBytes)}`,
  ];
  return `${first}     ${description}\n     ${features.join(', ')}\n     ${limits.join(', ')}\n`;
}

const checkText = ({ name, status, message, help }: Check): string =>
  `  ${status.padEnd(9)}${name.padEnd(14)}${message}\n${help === undefined ? '' : `${' '.repeat(25)}what helps: ${help}\n`}`;

/** Formats the report for a person. */
export function doctorText(devices: readonly DeviceSummary[], checks: readonly Check[]): string {
  const listed = devices.length > 0 ? devices.map(deviceText).join('') : '  none\n';
  return `devices\n${listed}\nchecks\n${checks.map(checkText).join('')}`;
}

/** Examines the machine and reports on standard output. With `--fix` it installs what is missing and examines it again. */
async function examineMachine(
  settings: DoctorSettings,
  { stdout, describe, reporter }: Surroundings,
): Promise<number> {
  const folder = await modelFolder(settings.model);
  let { info, checks } = await examine(settings, folder, describe);
  const fixed = settings.fix ? fix(info, reporter) : [];
  if (fixed.length > 0) ({ info, checks } = await examine(settings, folder, describe));
  const status = statusOfChecks(checks);
  const devices = info.probe?.devices ?? [];
  const { node, platform, webgpu } = info;
  const report = { status, node, platform, webgpu, devices, checks, fixed };
  await writeReport(stdout, settings.reportFormat, report, doctorText(devices, checks));
  return status;
}

export const doctor: Subcommand<DoctorSettings> = {
  name: 'doctor',
  summary: 'List the devices, check everything that a run needs, and suggest what helps.',
  operands: {},
  options: DOCTOR,
  help: HELP,
  read: (_, typed) => readOptions(DOCTOR, typed),
  run: examineMachine,
};
