// `classify --dry-run`: what a run would cost, from one timed batch, without classifying.

import { type Description, flopOf } from '../../graph/describe.ts';
import type { EvaluationBatch, Model } from '../../graph/model.ts';
import { bind } from '../deciding/bind.ts';
import { aggregate, eliminate, type Facts, fanOut, startTrial } from '../deciding/trial.ts';
import type { ClassifyOptions } from '../operators/classify-options.ts';
import { bytes, duration, gigaflop, short } from './progress.ts';

/** Evaluations of an image. */
export interface Evaluations {
  /** Where every rival is far behind from the start. */
  readonly least: number;
  /** Where no rival ever falls behind. */
  readonly most: number;
  /** All candidates at all levels. */
  readonly exhaustive: number;
}

/** The same, with the distinct (image, level, noise) of each: what a network that shares all its work runs for. */
export interface Demand extends Evaluations {
  readonly views: Evaluations;
}

/**
 * The least and the most evaluations that a strategy asks for, by playing it through: with candidates of the first
 * one's class ahead of all others, and with all equal.
 *
 * @throws UsageError where the strategy does not fit the model, or the budget does not reach every candidate.
 */
export function evaluationsOf(facts: Facts, options: Pick<ClassifyOptions, 'strategy' | 'budget'>): Demand {
  const first = facts.candidates[0]?.classidx;
  const apart = facts.candidates.map(({ classidx }) => (classidx === first ? 0 : 1));
  const equal = facts.candidates.map(() => 0);
  const least = played(facts, options, apart);
  const most = played(facts, options, equal);
  const levels = facts.levels.length;
  return {
    least: least.evaluations,
    most: most.evaluations,
    exhaustive: facts.candidates.length * levels,
    views: { least: least.views, most: most.views, exhaustive: levels },
  };
}

function played(
  facts: Facts,
  options: Pick<ClassifyOptions, 'strategy' | 'budget'>,
  errors: readonly number[],
): { readonly evaluations: number; readonly views: number } {
  const decide = bind(facts, options);
  let trial = startTrial(facts);
  for (;;) {
    const [next, look] = eliminate(trial, decide(trial), options.budget);
    if (next.decided !== undefined) return { evaluations: next.evaluations, views: next.visited.length };
    const fans = fanOut(next, look);
    trial = aggregate(
      next,
      fans,
      fans.map(({ candidates }) => Float32Array.from(candidates, (candidate) => errors[candidate]!)),
    );
  }
}

/** One timed batch of evaluations, and what came before it: an image encoded, and a first batch. */
export interface Timing {
  readonly evaluations: number;
  readonly seconds: number;
  /** Seconds to put an image on the device, a first evaluation included. */
  readonly first: number;
}

/** Seconds that the timed batch should not take much longer than, where one evaluation alone shows that it would. */
const PATIENCE = 20;

/** Times a batch of the model, full unless that takes too long, as classifying would fill it: level by level. */
export async function timeBatch(model: Model, now: () => number = () => performance.now()): Promise<Timing> {
  const [c, h, w] = model.inputShape;
  const begun = now();
  model.encode(0, new Float32Array(c * h * w));
  await model.errors(batchOf(model, 1));
  const first = (now() - begun) / 1000;
  const evaluations = Math.max(1, Math.min(model.batchSize, Math.floor(PATIENCE / first)));
  const start = now();
  await model.errors(batchOf(model, evaluations));
  return { evaluations, seconds: (now() - start) / 1000, first };
}

/** The first evaluations of an image in slot 0: all candidates at a level, then at the next. */
function batchOf({ candidates, levels }: Model, length: number): EvaluationBatch {
  const from = (value: (i: number) => number) => Uint32Array.from({ length }, (_, i) => value(i));
  const level = (i: number) => Math.floor(i / candidates.length) % levels.length;
  return {
    slot: new Uint32Array(length),
    candidate: from((i) => i % candidates.length),
    level: from(level),
    noise: from(level),
  };
}

/** Seconds, or operations, of each count of evaluations. */
type Seconds = { readonly [Name in keyof Evaluations]: number };

/** What `--dry-run` says. */
export interface Estimate {
  readonly model: string;
  readonly images: number;
  readonly candidates: number;
  readonly classes: number;
  readonly levels: number;
  /** An image. */
  readonly evaluations: Evaluations;
  /** Billions of floating-point operations of an evaluation by itself. */
  readonly gflop: number;
  /** The same of an image: what candidates of an (image, level, noise) share is spent once for all of them. */
  readonly gflopImage: Evaluations;
  readonly memory: {
    /** Bytes of weights, and the least that activations of a batch take, by the network's description. */
    readonly weights: number;
    readonly activations: number;
    /** Bytes held on the device; null where the model does not say. */
    readonly device: number | null;
  };
  readonly batchSize: number;
  readonly timed: { readonly evaluations: number; readonly seconds: number };
  readonly seconds: { readonly evaluation: number; readonly image: Seconds; readonly all: Seconds };
}

/** Puts together what is known. */
export function estimateOf(
  model: Model,
  images: number,
  { views, ...evaluations }: Demand,
  timing: Timing,
  cost: NonNullable<Description['cost']>,
): Estimate {
  const evaluation = timing.seconds / timing.evaluations;
  // Time goes with operations, those that candidates share counted once: with evaluations, where they share none.
  const timedViews = Math.ceil(timing.evaluations / model.candidates.length);
  const perFlop = timing.seconds / flopOf(cost, { evaluations: timing.evaluations, views: timedViews });
  const encoding = Math.max(0, timing.first - perFlop * cost.flop);
  const each = (value: (name: keyof Evaluations) => number): Evaluations => ({
    least: value('least'),
    most: value('most'),
    exhaustive: value('exhaustive'),
  });
  const flop = each((name) => flopOf(cost, { evaluations: evaluations[name], views: views[name] }));
  const scaled = (times: number): Seconds => each((name) => times * (encoding + perFlop * flop[name]));
  return {
    model: model.name,
    images,
    candidates: model.candidates.length,
    classes: new Set(model.candidates.map(({ classidx }) => classidx)).size,
    levels: model.levels.length,
    evaluations,
    gflop: cost.flop / 1e9,
    gflopImage: each((name) => flop[name] / 1e9),
    memory: {
      weights: cost.weightBytes,
      activations: cost.activationBytes * model.batchSize,
      device: model.deviceBytes ?? null,
    },
    batchSize: model.batchSize,
    timed: { evaluations: timing.evaluations, seconds: timing.seconds },
    seconds: { evaluation, image: scaled(1), all: scaled(images) },
  };
}

/** An estimate for a person. */
export function estimateText(estimate: Estimate): string {
  const { evaluations, gflopImage, seconds, memory, timed } = estimate;
  const range = (least: string, most: string) => (least === most ? least : `${least} to ${most}`);
  const spent = (of: Seconds) =>
    `${range(duration(of.least), duration(of.most))} (exhaustive ${duration(of.exhaustive)})`;
  const prompts =
    estimate.candidates === estimate.classes
      ? `${short(estimate.classes)} classes`
      : `${short(estimate.candidates)} prompts of ${short(estimate.classes)} classes`;
  const held = memory.device === null ? '' : `; ${bytes(memory.device)} held on the device`;
  const rows = [
    ['model', `${estimate.model}, ${prompts}, ${short(estimate.levels)} noise levels`],
    [
      'evaluations an image',
      `${range(short(evaluations.least), short(evaluations.most))} (exhaustive ${short(evaluations.exhaustive)})`,
    ],
    ['an evaluation', `${gigaflop(1e9 * estimate.gflop)}, ${milliseconds(seconds.evaluation)}`],
    [
      'memory',
      `${bytes(memory.weights)} weights, ${bytes(memory.activations)} or more for batches of ${short(estimate.batchSize)}${held}`,
    ],
    [
      'an image',
      `${range(gigaflop(1e9 * gflopImage.least), gigaflop(1e9 * gflopImage.most))} (exhaustive ${gigaflop(1e9 * gflopImage.exhaustive)}), ${spent(seconds.image)}`,
    ],
    [`all ${short(estimate.images)} images`, spent(seconds.all)],
    ['timed', `one batch of ${short(timed.evaluations)} evaluations in ${milliseconds(timed.seconds)}`],
  ] as const;
  return rows.map(([what, value]) => `${what.padEnd(22)}${value}\n`).join('');
}

const milliseconds = (seconds: number) =>
  seconds < 1 ? `${short(1000 * seconds)} ms` : `${short(seconds)} s`;
