// From the arguments of a process to its exit status. Every fault ends here, as one sentence on standard error.

import { type Command, CommanderError } from 'commander';
import type { DriverCall } from '../../kernels/adapters.ts';
import { UsageError } from '../errors.ts';
import { attack, attackCommand, readAttackSettings } from './attack.ts';
import { calibrate, calibrateCommand, readCalibrateSettings } from './calibrate.ts';
import { createCommand, type Texts } from './command.ts';
import { convert, convertCommand, readConvertSettings } from './convert.ts';
import { doctor, doctorCommand, readDoctorSettings } from './doctor.ts';
import { evaluate, evaluateCommand, readEvaluateSettings } from './evaluate.ts';
import { describeError, statusOf } from './exitstatus.ts';
import { info, infoCommand, readInfoSettings } from './info.ts';
import type { SignalSource } from './interruption.ts';
import { match, matchCommand, readMatchSettings } from './match.ts';
import type { OpenFolder } from './modelchoice.ts';
import { optimal, optimalCommand, readOptimalSettings } from './optimal.ts';
import type { LogLevel } from './options/output.ts';
import { addOptions, readOptions } from './options/table.ts';
import { createReporter, type ErrorOutput } from './progress.ts';
import { readVersion } from './provenance.ts';
import { purify, purifyCommand, readPurifySettings } from './purify.ts';
import { run, type Surroundings } from './run.ts';
import { readSettings } from './settings.ts';
import type { Output } from './sinks.ts';

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
    stdin = process.stdin,
    stdout = process.stdout,
    stderr = process.stderr,
    signals = process,
  } = options;
  const [first = '', ...rest] = argv;
  if (PLANNED.includes(first))
    throw new UsageError(`"${first}" is not part of this version (a folder of that name is ./${first})`);
  const named = Object.hasOwn(SUBCOMMANDS, first);
  const { command: create, prepare, noun, device } = SUBCOMMANDS[named ? first : 'classify']!;
  const command = create({ out: (text) => stdout.write(text), err: (text) => stderr.write(text) });
  if (device) addOptions(command, DEVICE);
  command.parse(named ? rest : [...argv], { from: 'user' });
  const chosen = readOptions(DEVICE, command.opts()).device;
  const prepared = prepare(command.args, command.opts());
  const { quiet = false, logLevel = 'info' } = prepared;
  const reporter = createReporter(stderr, quiet ? 'error' : logLevel, Date.now, noun);
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
    stderr.write(`diffclass-stream: ${describeError(error)}\n`);
    return statusOf(error);
  }
}
