// `classify --dry-run`: what a run would cost, from timed batches and a few images that are classified for real.

import { ModelError } from '../../../../errors.ts';
import type { EvaluationBatch, Model } from '../../../../graph/model.ts';
import { type Description, flopOf } from '../../../../graph/models/describe.ts';
import type { OpenModelOptions } from '../../../../graph/models/open-model.ts';
import { classifyImages } from '../../../classifying/classify-images.ts';
import { bind } from '../../../deciding/bind.ts';
import { aggregate, counted, eliminate, type Facts, fanOut, startTrial } from '../../../deciding/trial.ts';
import { loadItem } from '../../../images/load.ts';
import { findImages } from '../../../images/sources.ts';
import type { ClassifyOptions } from '../../../operators/classify-options.ts';
import { DEPTH, type OpenModel } from '../../../stream/batcher.ts';
import { type ImageItem, type ItemFailure, isFailure } from '../../../types.ts';
import { bytes, gigaflop, short } from '../../shared/progress.ts';
import { timePurification } from '../../shared/purify-timing.ts';
import { streamWriter } from '../../shared/sinks.ts';
import type { Surroundings } from '../../shared/surroundings.ts';
import {
  brief,
  MEANING,
  type RunTime,
  rangeText,
  rowsText,
  runTimeOf,
  type Seconds,
  secondsOf,
  sumOf,
  type Timing,
  timeWork,
} from '../../shared/timing.ts';
import type { Settings } from './settings.ts';

/** Counts of evaluations of an image. */
export interface Evaluations {
  /** If every rival is far behind from the start. */
  readonly least: number;
  /** If no rival ever falls behind. */
  readonly most: number;
  /** All candidates at all levels. */
  readonly exhaustive: number;
}

/** What a strategy asks for of an image. */
export interface Demand extends Evaluations {
  /** The distinct (image, level, noise) of each count: what a network runs for whose candidates share all work. */
  readonly views: Evaluations;
  /** Evaluations that an image asks for at once, in its first round. */
  readonly atOnce: number;
}

/**
 * Counts the least and the most evaluations that a strategy asks for, by playing it through: with the candidates of one
 * class ahead of all others by the same at every level, as levels count, so that no test could be more certain; and with
 * all candidates equal.
 *
 * @throws UsageError if the strategy does not fit the model, or the budget does not reach every candidate.
 */
export function evaluationsOf(facts: Facts, options: Pick<ClassifyOptions, 'strategy' | 'budget'>): Demand {
  const first = facts.candidates[0]?.classidx;
  const lead = counted(facts.levels).map(({ weight, share }) => (weight > 0 ? share / weight : 1));
  const least = played(facts, options, (candidate, level) =>
    facts.candidates[candidate]!.classidx === first ? 0 : lead[level]!,
  );
  const most = played(facts, options, () => 0);
  const levels = facts.levels.length;
  return {
    least: least.evaluations,
    most: most.evaluations,
    exhaustive: facts.candidates.length * levels,
    views: { least: least.views, most: most.views, exhaustive: levels },
    atOnce: most.atOnce,
  };
}

function played(
  facts: Facts,
  options: Pick<ClassifyOptions, 'strategy' | 'budget'>,
  errorOf: (candidate: number, level: number) => number,
): { readonly evaluations: number; readonly views: number; readonly atOnce: number } {
  const decide = bind(facts, options);
  let trial = startTrial(facts);
  let atOnce = 0;
  for (;;) {
    const [next, look] = eliminate(trial, decide(trial), options.budget);
    if (next.decided !== undefined)
      return { evaluations: next.evaluations, views: next.visited.length, atOnce };
    const fans = fanOut(next, look);
    trial = aggregate(
      next,
      fans,
      fans.map(({ candidates, level }) =>
        Float32Array.from(candidates, (candidate) => errorOf(candidate, level)),
      ),
    );
    atOnce ||= trial.evaluations;
  }
}

/**
 * Times batches of a model as a run would fill them: with `inFlight` images that ask for `atOnce` evaluations each, in
 * as many batches at the same time as the run has. An image is evaluated for `among` candidates at each level, all of
 * the model's if that is absent.
 */
export function timeEvaluations(
  model: Model,
  inFlight: number,
  atOnce: number,
  among = model.candidates.length,
): Promise<Timing> {
  const [c, h, w] = model.inputShape;
  model.encode(0, new Float32Array(c * h * w));
  const asked = Math.max(1, inFlight * atOnce);
  return timeWork({
    run: (count) => model.errors(batchOf(model, count, among)),
    fill: Math.min(model.batchSize, asked),
    depth: asked >= DEPTH * model.batchSize ? DEPTH : 1,
  });
}

/** The first evaluations of an image in slot 0: `among` candidates at a level, then at the next. */
function batchOf({ levels }: Model, length: number, among: number): EvaluationBatch {
  const from = (value: (i: number) => number) => Uint32Array.from({ length }, (_, i) => value(i));
  const level = (i: number) => Math.floor(i / among) % levels.length;
  return {
    slot: new Uint32Array(length),
    candidate: from((i) => i % among),
    level: from(level),
    noise: from(level),
  };
}

/** What a few images needed that were classified for real: means over them. */
export interface Sample {
  readonly images: number;
  readonly evaluations: number;
  readonly views: number;
  /** Seconds to read and decode an image. */
  readonly loading: number;
  /** Seconds that the first image took longer than its evaluations do later: smaller batches are planned, too. */
  readonly once: number;
}

/** Images of a sample at most. */
const SAMPLE = 8;

/** Seconds after which no further image of a sample is begun. */
const PATIENCE = 20;

/** Seconds after which a sample that is still running is given up. */
const TOO_LONG = 60;

/**
 * Classifies images for real, one after the other, to see how many evaluations they need; no further one is begun after
 * `PATIENCE`. Returns undefined if none can be classified in time. Takes the model over.
 */
async function sampleOf(
  paths: readonly string[],
  load: (path: string) => Promise<ImageItem | ItemFailure>,
  purify: (pixels: Float32Array) => Promise<Float32Array>,
  open: OpenModel,
  options: ClassifyOptions,
): Promise<Sample | undefined> {
  const signal = AbortSignal.timeout(1000 * TOO_LONG);
  const clock = () => performance.now() / 1000;
  const begun = clock();
  let loading = 0;
  let started = begun;
  const items = async function* () {
    for (const path of paths) {
      const now = clock();
      if (now - begun > PATIENCE) return;
      const item = await load(path);
      loading += clock() - now;
      const ready = isFailure(item) ? item : { ...item, pixels: await purify(item.pixels) };
      started = clock();
      yield ready;
    }
  };
  const views = new Set<string>();
  const done: { readonly evaluations: number; readonly seconds: number }[] = [];
  try {
    const results = classifyImages(items(), open, {
      ...options,
      concurrency: 1,
      signal,
      onEvaluations: (records) => {
        for (const { path, noise } of records) views.add(`${noise} ${path}`);
      },
    });
    for await (const result of results)
      if (!isFailure(result)) done.push({ evaluations: result.evaluations, seconds: clock() - started });
  } catch (error) {
    if (error !== signal.reason) throw error;
    return undefined;
  }
  const [first, ...rest] = done;
  if (!first) return undefined;
  const evaluations = (of: typeof done) => of.reduce((sum, image) => sum + image.evaluations, 0);
  const each = rest.length > 0 ? rest.reduce((sum, { seconds }) => sum + seconds, 0) / evaluations(rest) : 0;
  return {
    images: done.length,
    evaluations: evaluations(done) / done.length,
    views: views.size / done.length,
    loading: loading / done.length,
    once: rest.length > 0 ? Math.max(0, first.seconds - each * first.evaluations) : first.seconds,
  };
}

/** Seconds, or operations, of each count of evaluations; `typical` is null if no sample was run. */
type Spent = Seconds & Pick<Evaluations, 'exhaustive'>;

/** What `--dry-run` says. */
export interface Estimate {
  readonly model: string;
  readonly images: number;
  readonly candidates: number;
  readonly classes: number;
  readonly levels: number;
  /** Per image. */
  readonly evaluations: Spent;
  /** Billions of floating-point operations of an evaluation by itself. */
  readonly gflop: number;
  /** The same per image: what candidates of an (image, level, noise) share is counted once for all of them. */
  readonly gflopImage: Spent;
  readonly memory: {
    /** Bytes of weights, and the least that activations of a batch take, by the network's description. */
    readonly weights: number;
    readonly activations: number;
    /** Bytes held on the device; null if the model does not say. */
    readonly device: number | null;
  };
  readonly batchSize: number;
  /** Evaluations of each timed batch, the batches, and the mean seconds of one. */
  readonly timed: { readonly evaluations: number; readonly batches: number; readonly seconds: number };
  /** Images that were classified for real, which the typical values come from. */
  readonly sample: number;
  readonly seconds: {
    readonly evaluation: number;
    /** Spent once, whatever the number of images: starting, opening the model, compiling. */
    readonly once: number;
    /** Per image, purification included. */
    readonly image: Spent;
    /** Of that, what purification takes; null without `--purify`. */
    readonly purification: Seconds | null;
    /** The whole run; `most` and `typical` include what is spent once. */
    readonly all: Spent;
  };
}

/** What an estimate is made of. */
export interface Measured {
  readonly images: number;
  readonly demand: Demand;
  readonly timing: Timing;
  readonly sample: Sample | undefined;
  readonly cost: NonNullable<Description['cost']>;
  /** Bytes that the model holds on the device; null if it does not say. */
  readonly deviceBytes: number | null;
  /** Seconds before the first evaluation: the program's start and the opening of the model. */
  readonly opening: number;
  readonly purification?: { readonly seconds: Seconds; readonly once: number } | undefined;
}

/** Puts together what is known. */
export function estimateOf(model: Model, measured: Measured): Estimate {
  const { images, demand, timing, sample, cost, opening, purification } = measured;
  const { views, atOnce: _, ...evaluations } = demand;
  const { units } = timing;
  const flopFor = (count: number, viewed: number) => flopOf(cost, { evaluations: count, views: viewed });
  const flop = {
    least: flopFor(evaluations.least, views.least),
    typical: sample ? flopFor(sample.evaluations, sample.views) : null,
    most: flopFor(evaluations.most, views.most),
    exhaustive: flopFor(evaluations.exhaustive, views.exhaustive),
  };
  // Time grows with operations, those that candidates share counted once.
  const batchFlop = flopFor(units, Math.ceil(units / model.candidates.length));
  const perFlop = {
    fastest: (timing.fastest * units) / batchFlop,
    mean: (timing.mean * units) / batchFlop,
    slowest: (timing.slowest * units) / batchFlop,
  };
  // Images are loaded while the device works, so loading costs no time at best, and all of it at worst.
  const loading = { least: 0, typical: 0, most: sample?.loading ?? 0 };
  const image = sumOf([secondsOf(perFlop, flop), loading, ...(purification ? [purification.seconds] : [])]);
  const once = opening + timing.once + (sample?.once ?? 0) + (purification?.once ?? 0);
  const time: RunTime = runTimeOf(images, image, once);
  const exhaustive = perFlop.mean * flop.exhaustive + (purification?.seconds.typical ?? 0);
  return {
    model: model.name,
    images,
    candidates: model.candidates.length,
    classes: new Set(model.candidates.map(({ classidx }) => classidx)).size,
    levels: model.levels.length,
    evaluations: { ...evaluations, typical: sample?.evaluations ?? null },
    gflop: cost.flop / 1e9,
    gflopImage: {
      least: flop.least / 1e9,
      typical: flop.typical === null ? null : flop.typical / 1e9,
      most: flop.most / 1e9,
      exhaustive: flop.exhaustive / 1e9,
    },
    memory: {
      weights: cost.weightBytes,
      activations: cost.activationBytes * model.batchSize,
      device: measured.deviceBytes,
    },
    batchSize: model.batchSize,
    timed: { evaluations: units, batches: timing.runs, seconds: timing.mean * units },
    sample: sample?.images ?? 0,
    seconds: {
      evaluation: timing.mean,
      once: time.once,
      image: { ...time.image, exhaustive },
      purification: purification?.seconds ?? null,
      all: { ...time.all, exhaustive: images * exhaustive + once },
    },
  };
}

/** An estimate for a person. */
export function estimateText(estimate: Estimate): string {
  const { evaluations, gflopImage, seconds, memory, timed, images, sample } = estimate;
  const range = (least: string, most: string) => (least === most ? least : `${least} to ${most}`);
  const typically = (value: number | null) => (value === null ? '' : `, typically ${short(value)}`);
  const prompts =
    estimate.candidates === estimate.classes
      ? `${short(estimate.classes)} classes`
      : `${short(estimate.candidates)} prompts of ${short(estimate.classes)} classes`;
  const held = memory.device === null ? '' : `; ${bytes(memory.device)} held on the device`;
  const gflop = range(gigaflop(1e9 * gflopImage.least), gigaflop(1e9 * gflopImage.most));
  return rowsText([
    ['model', `${estimate.model}, ${prompts}, ${short(estimate.levels)} noise levels`],
    [
      'evaluations an image',
      `${range(short(evaluations.least), short(evaluations.most))}${typically(evaluations.typical)} (exhaustive ${short(evaluations.exhaustive)})`,
    ],
    ['an evaluation', `${gigaflop(1e9 * estimate.gflop)}, ${milliseconds(seconds.evaluation)}`],
    [
      'memory',
      `${bytes(memory.weights)} weights, ${bytes(memory.activations)} or more for batches of ${short(estimate.batchSize)}${held}`,
    ],
    ...(seconds.purification ? [['to purify an image', rangeText(seconds.purification)] as const] : []),
    ['an image', `${rangeText(seconds.image)} (exhaustive ${brief(seconds.image.exhaustive)}), ${gflop}`],
    ['once', `${brief(seconds.once)} to start, open the model and compile (less if the shaders are cached)`],
    [
      `all ${short(images)} images`,
      `${rangeText(seconds.all)} (exhaustive ${brief(seconds.all.exhaustive)}), what is spent once included`,
    ],
    [
      'timed',
      `${timed.batches} batches of ${short(timed.evaluations)} evaluations, ${milliseconds(timed.seconds)} each`,
    ],
    ...(sample > 0
      ? [['typical', `by the first ${sample} images, which were classified for real`] as const]
      : []),
    ['range', MEANING],
  ]);
}

const milliseconds = (seconds: number) =>
  seconds < 1 ? `${short(1000 * seconds)} ms` : `${short(seconds)} s`;

/** What a dry run is about: the run as it would be. */
export interface DryRun {
  readonly settings: Settings;
  readonly surroundings: Surroundings;
  readonly folder: string;
  readonly modelOptions: OpenModelOptions;
  readonly model: Model;
  /** Hands the model over, or opens it again. */
  readonly open: OpenModel;
  readonly deciding: Pick<ClassifyOptions, 'strategy' | 'budget'>;
  /** Seconds from the program's start until the model was open. */
  readonly opening: number;
}

/** Says what the run would cost, on standard output: a line of JSON if JSON lines are asked for by name. */
export async function dryRun(run: DryRun): Promise<number> {
  const { settings, model, folder, opening, deciding } = run;
  const { stdin, stdout, describe, openModel } = run.surroundings;
  const { purifying, concurrency, nul } = settings;
  const demand = evaluationsOf(model, deciding);
  const { cost, problems } = await describe(folder, run.modelOptions);
  if (!cost) throw new ModelError(problems[0] ?? `${folder}: its cost is not known`);
  const first: string[] = [];
  let images = 0;
  for await (const found of findImages(settings.inputs, { stdin, nul }))
    if (typeof found === 'string' && images++ < SAMPLE) first.push(found);
  const inFlight = Math.max(1, Math.min(images, concurrency ?? model.slots, model.slots));
  const timing = await timeEvaluations(model, inFlight, demand.atOnce);
  const purification = purifying && (await timePurification(purifying, settings, images, folder, openModel));
  try {
    const deviceBytes = model.deviceBytes ?? null;
    const load = (path: string) => loadItem(path, model.inputShape, { crop: model.crop });
    const purify = purification?.purify ?? ((pixels) => Promise.resolve(pixels));
    const sample = first.length > 0 ? await sampleOf(first, load, purify, run.open, deciding) : undefined;
    const measured = { images, demand, timing, sample, cost, opening, deviceBytes, purification };
    const estimate = estimateOf(model, measured);
    const json = settings.format === 'jsonl';
    await streamWriter(stdout).write(json ? `${JSON.stringify(estimate)}\n` : estimateText(estimate));
    return 0;
  } finally {
    purification?.close();
  }
}
