// From the arguments of a process to its exit status. Every fault ends here, as one sentence on standard error.

import { existsSync, fstatSync } from 'node:fs';
import { type Command, CommanderError } from 'commander';
import { UsageError } from '../../errors.ts';
import type { DriverCall } from '../../kernels/device/adapters.ts';
import { printable } from '../escaping.ts';
import { systemPath } from '../node/system-path.ts';
import { createCommand } from './command.ts';
import type { LogLevel } from './options/output-options.ts';
import { addOptions, readOptions } from './options/table.ts';
import { editDistance, nearest } from './shared/candidates.ts';
import { describeError, INTERNAL, statusOf } from './shared/exit-status.ts';
import type { SignalSource } from './shared/interruption.ts';
import type { OpenFolder } from './shared/model-choice.ts';
import { createReporter, type ErrorOutput } from './shared/progress.ts';
import { readVersion } from './shared/provenance.ts';
import { type Output, streamWriter } from './shared/sinks.ts';
import type { Texts } from './shared/subcommand.ts';
import type { Surroundings } from './shared/surroundings.ts';
import { attack, attackCommand, readAttackSettings } from './subcommands/attack.ts';
import { calibrate, calibrateCommand, readCalibrateSettings } from './subcommands/calibrate/calibrate.ts';
import { run } from './subcommands/classify/classify.ts';
import { readSettings } from './subcommands/classify/settings.ts';
import { convert, convertCommand, readConvertSettings } from './subcommands/convert.ts';
import { doctor, doctorCommand, readDoctorSettings } from './subcommands/doctor/doctor.ts';
import { evaluate, evaluateCommand, readEvaluateSettings } from './subcommands/evaluate/evaluate.ts';
import { info, infoCommand, readInfoSettings } from './subcommands/info.ts';
import { match, matchCommand, readMatchSettings } from './subcommands/match/match.ts';
import { optimal, optimalCommand, readOptimalSettings } from './subcommands/optimal.ts';
import { purify, purifyCommand, readPurifySettings } from './subcommands/purify/purify.ts';

/** What the command takes from outside; all but what is known of models has the process's own as default. */
export interface MainOptions {
  readonly openModel: OpenFolder;
  /** Makes what finds and opens a device without the driver's own messages. */
  readonly silentDriver?: () => Promise<DriverCall>;
  readonly describe: Surroundings['describe'];
  readonly stdin?: AsyncIterable<Uint8Array>;
  readonly stdout?: Output;
  readonly stderr?: ErrorOutput;
  readonly signals?: SignalSource;
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** Standard input of the process. Node reads a folder there as if it were empty. @throws UsageError for a folder. */
async function* processInput(): AsyncGenerator<Uint8Array> {
  if (fstatSync(0).isDirectory())
    throw new UsageError('standard input is a folder; name the folder as INPUT instead of -');
  yield* process.stdin;
}

/**
 * Whether what is written goes to another program. Its lines may come to the same terminal, where they would stand
 * in the middle of a line of progress.
 */
function isPipe(stdout: Output): boolean {
  if (stdout !== process.stdout) return false;
  const info = fstatSync(1);
  return info.isFIFO() || info.isSocket();
}

/** Letters that a mistyped name of a subcommand may differ in. */
const MISTYPED = 2;

/**
 * Refuses a first argument that is almost the name of a subcommand and no file: taken for an input, it would have
 * everything after it classified.
 *
 * @throws UsageError naming the subcommand that was probably meant.
 */
function checkMistyped(first: string, names: readonly string[]): void {
  if (!/^[a-z]{4,}$/i.test(first) || existsSync(systemPath(first))) return;
  const name = nearest(first, names);
  if (name !== undefined && editDistance(first.toLowerCase(), name) <= MISTYPED)
    throw new UsageError(`"${first}" is neither a command nor a file; did you mean ${name}?`);
}

/** Subcommands that the design has and this version has not. */
const PLANNED: readonly string[] = ['certify', 'train', 'bench', 'report', 'worker', 'submit', 'serve'];

/** A subcommand: its arguments to a run with what it needs from outside. */
interface Subcommand {
  readonly command: (texts: Texts) => Command;
  /** Checks arguments and options; what comes back runs. */
  readonly prepare: (args: readonly string[], typed: Readonly<Record<string, unknown>>) => Runnable;
  /** What its progress counts. */
  readonly noun?: string;
  /** Opens models on a device, and so has the option --device. */
  readonly device?: true;
}

interface Runnable {
  readonly quiet?: boolean;
  readonly logLevel?: LogLevel;
  readonly run: (surroundings: Surroundings) => Promise<number>;
}

/** The option of every command that opens a model. */
const DEVICE = ['device'] as const;

const SUBCOMMANDS: Readonly<Record<string, Subcommand>> = {
  classify: {
    command: (texts) => createCommand(readVersion(), texts),
    prepare(args, typed) {
      const settings = readSettings(args, typed);
      return { ...settings, run: (surroundings) => run(settings, surroundings) };
    },
    device: true,
  },
  match: {
    command: matchCommand,
    prepare(args, typed) {
      const settings = readMatchSettings(args, typed);
      return { ...settings, run: (surroundings) => match(settings, surroundings) };
    },
    noun: 'items',
    device: true,
  },
  purify: {
    command: purifyCommand,
    prepare(args, typed) {
      const settings = readPurifySettings(args, typed);
      return { ...settings, run: (surroundings) => purify(settings, surroundings) };
    },
    device: true,
  },
  calibrate: {
    command: calibrateCommand,
    prepare(args, typed) {
      const settings = readCalibrateSettings(args, typed);
      return { ...settings, run: (surroundings) => calibrate(settings, surroundings) };
    },
    device: true,
  },
  attack: {
    command: attackCommand,
    prepare(args, typed) {
      const settings = readAttackSettings(args, typed);
      return { ...settings, run: (surroundings) => attack(settings, surroundings) };
    },
    device: true,
  },
  evaluate: {
    command: evaluateCommand,
    prepare(args, typed) {
      const settings = readEvaluateSettings(args, typed);
      return { ...settings, run: (surroundings) => evaluate(settings, surroundings) };
    },
    device: true,
  },
  convert: {
    command: convertCommand,
    prepare(args, typed) {
      const settings = readConvertSettings(args, typed);
      return { ...settings, run: (surroundings) => convert(settings, surroundings) };
    },
  },
  optimal: {
    command: optimalCommand,
    prepare(args, typed) {
      const settings = readOptimalSettings(args, typed);
      return { ...settings, run: (surroundings) => optimal(settings, surroundings) };
    },
  },
  doctor: {
    command: doctorCommand,
    prepare(args, typed) {
      const settings = readDoctorSettings(args, typed);
      return { run: (surroundings) => doctor(settings, surroundings) };
    },
  },
  info: {
    command: infoCommand,
    prepare(args, typed) {
      const settings = readInfoSettings(args, typed);
      return { run: (surroundings) => info(settings, surroundings) };
    },
  },
};

async function dispatch(argv: readonly string[], options: MainOptions): Promise<number> {
  const {
    openModel,
    silentDriver,
    describe,
    stdin = processInput(),
    stdout = process.stdout,
    stderr = process.stderr,
    signals = process,
    env = process.env,
  } = options;
  const [first = '', ...rest] = argv;
  if (PLANNED.includes(first))
    throw new UsageError(`"${first}" is not part of this version (a folder of that name is ./${first})`);
  const named = Object.hasOwn(SUBCOMMANDS, first);
  if (!named) checkMistyped(first, Object.keys(SUBCOMMANDS));
  const { command: create, prepare, noun, device } = SUBCOMMANDS[named ? first : 'classify']!;
  const help = streamWriter(stdout);
  let written: Promise<void> | undefined;
  const command = create({
    out: (text) => {
      written = help.write(text);
    },
    err: (text) => stderr.write(printable(text, '\n')),
  });
  if (device) addOptions(command, DEVICE);
  try {
    command.parse(named ? rest : [...argv], { from: 'user' });
  } finally {
    await written;
  }
  const chosen = readOptions(DEVICE, command.opts()).device;
  const prepared = prepare(command.args, command.opts());
  const { quiet = false, logLevel = 'info' } = prepared;
  const reporter = createReporter(stderr, quiet ? 'error' : logLevel, {
    noun,
    renewing: stderr.isTTY === true && env.TERM !== 'dumb' && !isPipe(stdout),
  });
  // At the debug level, what drivers print is welcome.
  const driverCall = device && logLevel !== 'debug' ? await silentDriver?.() : undefined;
  const open: OpenFolder = (folder, given) =>
    openModel(folder, {
      ...given,
      device: { ...(chosen === undefined ? {} : { adapter: chosen }), ...(driverCall && { driverCall }) },
      onCompile: reporter.compiling,
    });
  try {
    return await prepared.run({ openModel: open, describe, stdin, stdout, signals, reporter });
  } finally {
    reporter.clear();
  }
}

/**
 * Runs the command line and returns its exit status: 0 all classified, 1 some items failed, 2 usage or
 * configuration, 3 model invalid, 4 no usable device, 70 a mistake of the program, 130 interrupted.
 */
export async function main(argv: readonly string[], options: MainOptions): Promise<number> {
  const stderr = options.stderr ?? process.stderr;
  try {
    return await dispatch(argv, options);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    const status = statusOf(error);
    stderr.write(`diffclass-stream: ${printable(describeError(error), status === INTERNAL ? '\n' : '')}\n`);
    return status;
  }
}
