// What a subcommand is: its help, its options and what it does; and what it takes from the process.

import type { Description } from '../../../graph/models/describe.ts';
import type { OpenModelOptions } from '../../../graph/models/open-model.ts';
import type { Device, DeviceOptions } from '../../../kernels/device/device.ts';
import type { OptionSet, OptionValues } from '../../option.ts';
import type { Group, OptionName } from '../options/table.ts';
import type { SignalSource } from './interruption.ts';
import type { OpenFolder } from './model-choice.ts';
import type { Reporter } from './progress.ts';
import type { Output } from './writers.ts';

/** The streams, signals and models that a subcommand works with; tests pass fakes. */
export interface Surroundings {
  readonly openModel: OpenFolder;
  /**
   * Opens the device that --device chooses, or the default one, with the tiles that models use on it. `given` may force a
   * family of kernels.
   */
  readonly openDevice: (given?: Pick<DeviceOptions, 'family'>) => Promise<Device>;
  /** Describes a model folder: `describeModel` of the graph, or a fake of it. */
  readonly describe: (folder: string, options?: OpenModelOptions) => Promise<Description>;
  readonly stdin: AsyncIterable<Uint8Array>;
  readonly stdout: Output;
  readonly signals: SignalSource;
  readonly reporter: Reporter;
  /** True with --quiet: progress is not shown, and no question is asked. */
  readonly quiet: boolean;
}

/** A subcommand; `Settings` is its checked command line. The options that all subcommands share are not part of it. */
export interface Subcommand<Settings extends object = object> {
  readonly name: string;
  /** Says in one sentence what it does, for its own help and for the list of commands. */
  readonly summary: string;
  /** Its arguments, such as `<SET>` or `[INPUT...]`, each with its help. */
  readonly operands: Readonly<Record<string, string>>;
  /** The line of usage, if it is not `[options]` and the arguments. */
  readonly usage?: string;
  /** Its options, in the order of its help. */
  readonly options: readonly OptionName[];
  /** Options that strategies, attacks or purifications declare, by their heading in its help. */
  readonly entryOptions?: Readonly<Partial<Record<Group, OptionSet>>>;
  /** The end of its help, after the options. */
  readonly help: string;
  /** Opens models on a device, and so has the option --device. */
  readonly usesDevice?: true;
  /** What its progress counts; images if absent. */
  readonly noun?: string;
  /**
   * Checks a command line. `typed` holds the options that were given, as texts, by the names of their values.
   *
   * @throws UsageError, one sentence that names the option, what was expected and what was given.
   */
  read(operands: readonly string[], typed: OptionValues): Settings;
  /** Does the work, and returns the exit status. */
  run(settings: Settings, surroundings: Surroundings): Promise<number>;
}
