// From the arguments of a process to its exit status. Every error ends here, as one sentence on standard error.

import { existsSync, fstatSync } from 'node:fs';
import { CommanderError } from 'commander';
import { UsageError } from '../../errors.ts';
import { withTiles } from '../../graph/models/open-model.ts';
import { userCache } from '../../graph/node/user-cache.ts';
import type { DriverCall } from '../../kernels/device/adapters.ts';
import { openDevice } from '../../kernels/device/device.ts';
import { printable } from '../escaping.ts';
import { systemPath } from '../node/system-path.ts';
import { commonOptions, createCommand } from './command.ts';
import { translateOldSpellings } from './old-spellings.ts';
import { readOptions } from './options/table.ts';
import { editDistance, nearest } from './shared/candidates.ts';
import { describeError, INTERNAL, statusOf } from './shared/exit-status.ts';
import type { OpenFolder } from './shared/model-choice.ts';
import { createReporter, type ErrorOutput, short } from './shared/progress.ts';
import type { Subcommand, Surroundings } from './shared/subcommand.ts';
import { type Output, streamWriter } from './shared/writers.ts';
import { SUBCOMMANDS } from './subcommands/list.ts';

/** What the command takes from outside. The defaults are the streams and signals of the process and all subcommands. */
export interface MainOptions
  extends Pick<Surroundings, 'openModel' | 'describe'>,
    Partial<Pick<Surroundings, 'stdin' | 'stdout' | 'signals'>> {
  /** Makes a function that calls the driver without letting it print its own messages. */
  readonly silentDriver?: () => Promise<DriverCall>;
  readonly stderr?: ErrorOutput;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly subcommands?: readonly Subcommand[];
}

/** Yields standard input. @throws UsageError if it is a folder, which Node would read as if it were empty. */
async function* processInput(): AsyncGenerator<Uint8Array> {
  if (fstatSync(0).isDirectory())
    throw new UsageError('standard input is a folder; name the folder as INPUT instead of -');
  yield* process.stdin;
}

/**
 * Returns whether standard output is a pipe to another program. That program may write to the same terminal, in the
 * middle of a line of progress.
 */
function isPipe(stdout: Output): boolean {
  if (stdout !== process.stdout) return false;
  const info = fstatSync(1);
  return info.isFIFO() || info.isSocket();
}

/** The largest edit distance between a mistyped name and the subcommand that was meant. */
const MISTYPED = 2;

/**
 * Refuses a first argument that is almost the name of a subcommand and no file. Otherwise it would be taken for an input,
 * and everything after it would be classified.
 *
 * @throws UsageError naming the subcommand that was probably meant.
 */
function checkMistyped(first: string, names: readonly string[]): void {
  if (!/^[a-z]{4,}$/i.test(first) || existsSync(systemPath(first))) return;
  const name = nearest(first, names);
  if (name !== undefined && editDistance(first.toLowerCase(), name) <= MISTYPED)
    throw new UsageError(`"${first}" is neither a command nor a file; did you mean ${name}?`);
}

/** Names of subcommands of later versions. */
const PLANNED: readonly string[] = ['certify', 'train', 'report', 'worker', 'submit', 'serve'];

async function dispatch(argv: readonly string[], options: MainOptions): Promise<number> {
  const {
    openModel,
    silentDriver,
    describe,
    subcommands = SUBCOMMANDS,
    stdin = processInput(),
    stdout = process.stdout,
    stderr = process.stderr,
    signals = process,
    env = process.env,
  } = options;
  const [first = '', ...rest] = argv;
  if (PLANNED.includes(first))
    throw new UsageError(`"${first}" is not part of this version (a folder of that name is ./${first})`);
  const names = subcommands.map(({ name }) => name);
  const named = subcommands.find(({ name }) => name === first);
  if (!named) checkMistyped(first, names);
  const subcommand = named ?? subcommands[0]!;
  const help = streamWriter(stdout);
  let written: Promise<void> | undefined;
  const out = (text: string) => {
    written = help.write(text);
  };
  const err = (text: string) => stderr.write(printable(text, '\n'));
  const command = createCommand(subcommand, { out, err }, subcommands);
  try {
    command.parse(named ? rest : [...argv], { from: 'user' });
  } finally {
    await written;
  }
  const { options: given, hints } = translateOldSpellings(subcommand.name, command.opts());
  const settings = subcommand.read(command.args, given);
  const { prediction, vae, lora, embedding, device, precision, tune, quiet, logLevel } = readOptions(
    commonOptions(subcommand),
    given,
  );
  const reporter = createReporter(stderr, quiet ? 'error' : logLevel, {
    noun: subcommand.noun,
    renewing: stderr.isTTY === true && env.TERM !== 'dumb' && !isPipe(stdout),
  });
  for (const hint of hints) reporter.log('debug', hint);
  // At the debug level, drivers may print.
  const driverCall = subcommand.usesDevice && logLevel !== 'debug' ? await silentDriver?.() : undefined;
  const chosen = { ...(device === undefined ? {} : { adapter: device }), ...(driverCall && { driverCall }) };
  const open: OpenFolder = (folder, given) =>
    openModel(folder, {
      ...given,
      device: chosen,
      ...(precision !== undefined && precision !== 'auto' && { precision }),
      ...(lora && { loras: lora }),
      ...(embedding && { embeddings: embedding }),
      ...(prediction && { prediction }),
      ...(vae !== undefined && { vae }),
      onPrediction: ({ prediction, epsilonError, vError }) =>
        reporter.log(
          'info',
          `the network predicts ${prediction}: measured, with an error of ${short(epsilonError)} as epsilon and ${short(vError)} as v`,
        ),
      onCompile: reporter.compiling,
      ...(tune !== undefined && { tune }),
      onTune: reporter.tuning,
    });
  try {
    const opened = {
      openModel: open,
      openDevice: async (given = {}) =>
        withTiles(await openDevice({ ...chosen, onCompile: reporter.compiling, ...given }), {
          ...(tune !== undefined && { tune }),
          onTune: reporter.tuning,
          cache: userCache(),
        }),
      describe,
    } satisfies Partial<Surroundings>;
    return await subcommand.run(settings, { ...opened, stdin, stdout, signals, reporter, quiet });
  } finally {
    reporter.clear();
  }
}

/**
 * Runs the command line and returns its exit status: 0 all classified, 1 some items failed, 2 usage or
 * configuration, 3 model invalid, 4 no usable device, 70 a bug of the program, 130 interrupted.
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
