// Describes a model for a person: its networks, what an evaluation costs, and everything that is wrong with it. Opening a
// model stops at the first fault; this lists them all.

import { ModelError, ShapeError, UnsupportedError } from '../../errors.ts';
import { product } from '../../numbers.ts';
import { costOf } from '../core/cost.ts';
import { trace } from '../evaluation/evaluation.ts';
import type { ModelIndex, NetworkPart, Part } from '../families/family.ts';
import { className } from '../files/class-name.ts';
import { type Files, nameIn } from '../files/files.ts';
import { readJson } from '../files/json.ts';
import { openTensorFile } from '../files/safetensors.ts';
import { type PredictionType, readSchedule } from '../folders/schedule.ts';
import { findWeights } from '../folders/weights.ts';
import type { ModelSummary } from '../model-summary.ts';
import { FAMILIES, readModelConfig, requireClasses } from './families.ts';
import { type LoadOptions, loadModel } from './open-model.ts';
import { summarise } from './summarise.ts';

/** One network of a folder. */
export interface NetworkDescription {
  /** The folder it is in, such as `unet`; `.` for the model's own. */
  readonly part: string;
  readonly className: string;
  /** Its main numbers, under their names in its configuration. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Number of values in all tensors of its file, and their bytes. */
  readonly parameters: number;
  readonly bytes: number;
  /** Number of values by their type in the file, such as F16. */
  readonly dtypes: Readonly<Record<string, number>>;
  /** Number of weight files. */
  readonly shards: number;
}

/** What an evaluation costs. */
export interface EvaluationCost {
  /** Floating-point operations of one evaluation by itself. */
  readonly flop: number;
  /**
   * The part of `flop` that all candidates of an (image, level, noise) share. A multi-head network shares everything but
   * the choice of the head. Absent if the network shares nothing.
   */
  readonly sharedFlop?: number;
  /** Bytes of the denoising network's weights on a device. */
  readonly weightBytes: number;
  /** Smallest memory of activations for one evaluation, in bytes. */
  readonly activationBytes: number;
  /** Set if the two are those of a model in f16. */
  readonly precision?: 'f16';
}

/** A model, as far as it can be read. */
export interface Description {
  readonly name: string;
  readonly path: string;
  /** The class in `model_index.json`, or of an EDM model or an optimal denoiser in its `config.json`. */
  readonly pipeline?: string;
  /** Unknown if it is measured when the model is opened. */
  readonly predictionType?: PredictionType | 'unknown';
  /** What the model states about itself; absent if it cannot be read. */
  readonly model?: ModelSummary;
  readonly networks: readonly NetworkDescription[];
  readonly cost?: EvaluationCost;
  /** Set for a model that is in order but cannot classify: it says why, and which commands take the model. */
  readonly note?: string;
  /** Everything that is missing, unexpected or not supported, one sentence each; first what opening the model throws. */
  readonly problems: readonly string[];
}

/** Collects the faults of a model instead of stopping at the first. */
function newProblems() {
  const found = new Set<string>();
  return {
    found,
    /** Runs a step and collects a fault of the model that it throws; any other error passes through. */
    async try<T>(step: () => Promise<T>): Promise<T | undefined> {
      try {
        return await step();
      } catch (error) {
        const known = [ModelError, UnsupportedError, ShapeError].some((kind) => error instanceof kind);
        if (!known) throw error;
        found.add((error as Error).message);
        return undefined;
      }
    },
  };
}

type Problems = ReturnType<typeof newProblems>;

/** Returns the keys of a JSON object; none if the file is missing or broken, which `readStated` reports. */
async function keysOf(files: Files, name: string): Promise<Readonly<Record<string, unknown>>> {
  try {
    const value = await readJson(files, name);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** Returns what the model's index says, as far as it can be read. */
async function indexOf(files: Files, present: ReadonlySet<string>): Promise<ModelIndex> {
  const name = present.has('model_index.json') ? 'model_index.json' : 'config.json';
  const json = await keysOf(files, name);
  return { name, json, className: className.safeParse(json._class_name).data, present };
}

/** Returns the parts that any family knows, each once, in the order of the index. */
function partsOf(index: ModelIndex): readonly Part[] {
  const order = Object.keys(index.json as object);
  const parts = FAMILIES.flatMap((family) => family.describe(index));
  const first = parts.filter(({ part }, i) => parts.findIndex((other) => other.part === part) === i);
  return first.sort((a, b) => order.indexOf(a.part) - order.indexOf(b.part));
}

async function describeNetwork(
  files: Files,
  { part, className, network: { stem, numbers, check } }: NetworkPart,
  problems: Problems,
): Promise<NetworkDescription | undefined> {
  const folder = part === '.' ? '' : part;
  const config = nameIn(folder, 'config.json');
  const file = await problems.try(async () => openTensorFile(files, await findWeights(files, folder, stem)));
  if (!file) return undefined;
  try {
    await problems.try(() => check(files, config, file));
    const tensors = [...file.tensors.values()];
    const dtypes: Record<string, number> = {};
    let parameters = 0;
    for (const { dtype, shape } of tensors) {
      const values = product(shape);
      dtypes[dtype] = (dtypes[dtype] ?? 0) + values;
      parameters += values;
    }
    return {
      part,
      className,
      config: Object.fromEntries(
        Object.entries(await keysOf(files, config)).filter(
          ([key, value]) => numbers.includes(key) && value !== null,
        ),
      ),
      parameters,
      bytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0),
      dtypes,
      shards: new Set(tensors.map((tensor) => tensor.file)).size,
    };
  } finally {
    await file.close();
  }
}

/** Returns candidates to compute a cost with: the model's classes, or two prompts. */
const someCandidates: NonNullable<LoadOptions['candidates']> = ({ conditioning, labels }) =>
  conditioning === 'text'
    ? ['', 'a photo'].map((prompt, classidx) => ({ label: prompt, classidx, prompt }))
    : labels.map((label, classidx) => ({ label, classidx }));

/**
 * Returns the cost of an evaluation of a model that is opened with some options.
 * @throws ModelError naming the file (and tensor) that is not in order.
 */
export async function costOfFiles(files: Files, options: LoadOptions): Promise<EvaluationCost> {
  const { network, evaluation, close } = await loadModel(files, { candidates: someCandidates, ...options });
  try {
    const { flop, constants, activationBytes } = costOf(trace(network, evaluation, 1), evaluation.precision);
    // A second candidate of the same view adds only the part that is not shared.
    const shared = network.shared && {
      sharedFlop: 2 * flop - costOf(trace(network, evaluation, 2, 1)).flop,
    };
    const width = evaluation.weightDtype === 'f16' ? 2 : 4;
    const precision = evaluation.precision === 'f16' ? { precision: evaluation.precision } : {};
    return { flop, ...shared, weightBytes: width * constants, activationBytes, ...precision };
  } finally {
    await close();
  }
}

/** Returns the floating-point operations of evaluations that have `views` distinct (image, level, noise) among them. */
export const totalFlop = (
  { flop, sharedFlop = 0 }: Pick<EvaluationCost, 'flop' | 'sharedFlop'>,
  { evaluations, views }: { readonly evaluations: number; readonly views: number },
): number => views * sharedFlop + evaluations * (flop - sharedFlop);

/**
 * Reads what a model states about itself. A model without classes that predicts without one is in order; `note` then says
 * what it is for.
 */
async function readStated(files: Files): Promise<{ summary: ModelSummary; note?: string }> {
  const read = await readModelConfig(files);
  const { labels, conditioning, nullClass } = read.family.candidates(read.config);
  const summary = summarise(read);
  if (conditioning === 'text' || labels.length > 0 || nullClass === undefined) {
    requireClasses(read);
    return { summary };
  }
  return {
    summary,
    note: 'the model has no classes, so it cannot classify; purify takes it, because that needs none',
  };
}

/** Describes a model in any state: all its faults are listed in `problems`. */
export async function describeFiles(files: Files, options: LoadOptions): Promise<Description> {
  const problems = newProblems();
  // If the folder cannot be read, `readStated` reports it.
  const present = new Set(await files.list('').catch(() => undefined));
  const index = await indexOf(files, present);
  const parts = partsOf(index);
  const isPipeline = index.name === 'model_index.json' || FAMILIES.some((family) => family.recognise(index));
  const pipeline = isPipeline ? index.className : undefined;
  const read = await problems.try(() => readStated(files));
  const networks: NetworkDescription[] = [];
  for (const part of parts) {
    if (!('network' in part)) continue;
    if (part.part !== '.' && !present.has(part.part))
      problems.found.add(`${files.describe(part.part)}: no such folder`);
    else {
      const network = await describeNetwork(files, part, problems);
      if (network) networks.push(network);
    }
  }
  for (const part of parts) if ('check' in part) await problems.try(() => part.check(files));
  const schedule = present.has('scheduler')
    ? await problems.try(() => readSchedule(files, 'scheduler/scheduler_config.json'))
    : undefined;
  const schedulerReported = [...problems.found].some((problem) =>
    problem.includes(files.describe('scheduler')),
  );
  if (Object.hasOwn(index.json as object, 'scheduler') && !present.has('scheduler') && !schedulerReported)
    problems.found.add(`${files.describe('scheduler')}: no such folder`);
  const cost =
    problems.found.size === 0
      ? await problems.try(() =>
          costOfFiles(files, read?.note === undefined ? options : { ...options, unconditional: true }),
        )
      : undefined;
  return {
    name: files.name,
    path: files.describe(''),
    ...(pipeline === undefined ? {} : { pipeline }),
    ...(schedule ? { predictionType: schedule.predictionType } : {}),
    ...(read ? { model: read.summary } : {}),
    ...(read?.note === undefined ? {} : { note: read.note }),
    networks,
    ...(cost ? { cost } : {}),
    problems: [...problems.found],
  };
}
