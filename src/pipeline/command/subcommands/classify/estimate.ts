// The estimate of `classify --dry-run`: its numbers, and its text for a person.

import type { Model } from '../../../../graph/model.ts';
import { type Description, totalFlop } from '../../../../graph/models/describe.ts';
import type { Demand, EvaluationCounts } from '../../shared/evaluation-demand.ts';
import { bytes, gigaflop, short } from '../../shared/progress.ts';
import {
  brief,
  MEANING,
  type Range,
  type RunTime,
  rangeText,
  rowsText,
  runTimeOf,
  secondsOf,
  sumOf,
  type Timing,
} from '../../shared/timing.ts';
import type { Sample } from './sample-run.ts';

/** An amount of work or seconds, also for all candidates at all levels; `typical` is null if no sample was run. */
type Spent = Range & Pick<EvaluationCounts, 'exhaustive'>;

/** The output of `--dry-run`. */
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
    /** Bytes held on the device; null if they are not known. */
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
    readonly purification: Range | null;
    /** The whole run; `most` and `typical` include what is spent once. */
    readonly all: Spent;
  };
}

/** What an estimate is computed from. */
export interface Measured {
  readonly images: number;
  readonly demand: Demand;
  readonly timing: Timing;
  readonly sample: Sample | undefined;
  readonly cost: NonNullable<Description['cost']>;
  /** Bytes that the model holds on the device; null if they are not known. */
  readonly deviceBytes: number | null;
  /** Seconds before the first evaluation: the program's start and the opening of the model. */
  readonly opening: number;
  readonly purification?: { readonly seconds: Range; readonly once: number } | undefined;
}

/** Computes an estimate from what was measured. */
export function estimateOf(model: Model, measured: Measured): Estimate {
  const { images, demand, timing, sample, cost, opening, purification } = measured;
  const { views, atOnce: _, ...evaluations } = demand;
  const { units } = timing;
  const flopFor = (count: number, viewed: number) => totalFlop(cost, { evaluations: count, views: viewed });
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

/** Formats an estimate for a person. */
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
      'evaluations per image',
      `${range(short(evaluations.least), short(evaluations.most))}${typically(evaluations.typical)} (exhaustive ${short(evaluations.exhaustive)})`,
    ],
    ['per evaluation', `${gigaflop(1e9 * estimate.gflop)}, ${milliseconds(seconds.evaluation)}`],
    [
      'memory',
      `${bytes(memory.weights)} weights, ${bytes(memory.activations)} or more for batches of ${short(estimate.batchSize)}${held}`,
    ],
    ...(seconds.purification ? [['purify an image', rangeText(seconds.purification)] as const] : []),
    ['per image', `${rangeText(seconds.image)} (exhaustive ${brief(seconds.image.exhaustive)}), ${gflop}`],
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
