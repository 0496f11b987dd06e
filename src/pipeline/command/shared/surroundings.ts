// What every command takes from its process, so that tests can pass fakes.

import type { Description } from '../../../graph/models/describe.ts';
import type { OpenModelOptions } from '../../../graph/models/open-model.ts';
import type { SignalSource } from './interruption.ts';
import type { OpenFolder } from './model-choice.ts';
import type { Reporter } from './progress.ts';
import type { Output } from './writers.ts';

/** The streams, signals and models that a command works with. */
export interface Surroundings {
  readonly openModel: OpenFolder;
  /** Describes a model folder: `describeModel` of the graph, or a fake of it. */
  readonly describe: (folder: string, options?: OpenModelOptions) => Promise<Description>;
  readonly stdin: AsyncIterable<Uint8Array>;
  readonly stdout: Output;
  readonly signals: SignalSource;
  readonly reporter: Reporter;
  /** Nobody sees progress or answers questions (--quiet). */
  readonly quiet: boolean;
}
