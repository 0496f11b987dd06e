// Traces evaluations as graphs: an image in a slot is noised, the network predicts, and the distance is reduced to one
// number per sample. Works for any network that can be traced, and knows nothing of folders or devices.

import type { Distance, Residual } from '../../kernels/diffusion/error-reduction.ts';
import type { NoiseSource } from '../../kernels/diffusion/mix.ts';
import { noiseKeys } from '../../kernels/diffusion/philox.ts';
import { apply, type Graph, input, newGraph, output } from '../core/graph.ts';
import type { Coefficients } from '../folders/schedule.ts';
import type { ImageGeometry, Level, Views } from '../model.ts';
import { table, type Value } from '../ops/value.ts';

/** The inputs of the part of a network that depends on the candidate, n samples each. */
interface SampleInputs {
  /** x_t [c, n, h, w]. */
  readonly xt: Value;
  /** Index of the level, and of the candidate's class or prompt (`label`): [1, n, 1, 1]. */
  readonly level: Value;
  readonly label: Value;
  /** The values that `Network.shared` computed, repeated for the samples they belong to. */
  readonly shared: readonly Value[];
}

/** The view of each sample (default: sample i has view i), and the class of its candidate: [1, n, 1, 1]. */
interface TakenAt {
  readonly view?: Value;
  readonly label: Value;
}

/** Values that a network takes with each image. They are kept next to the image in its slot. */
export interface ImageRow {
  readonly length: number;
  /** Returns the values for an image; `geometry` as in `Model.encode`. */
  readonly of: (geometry: ImageGeometry | undefined) => Float32Array<ArrayBuffer>;
}

/** A network that predicts from a noised image, a level and a class or prompt, and can be traced into any graph. */
export interface Network {
  /** Shape of what it denoises, an image or its latent. */
  readonly image: readonly [channels: number, height: number, width: number];
  /** What the network takes with each image in addition to its pixels, such as the size of its file. */
  readonly imageRow?: ImageRow | undefined;
  /**
   * The part that does not depend on the candidate. It is computed once per distinct (image, level, noise). `row` has the
   * values of `imageRow` for each sample [length, p, 1, 1].
   */
  readonly shared?: (graph: Graph, xt: Value, level: Value, row?: Value) => readonly Value[];
  /** Selects each sample's part of what `shared` computed for its view. Default: all of it. */
  readonly take?: (graph: Graph, x: Value, at: TakenAt) => Value;
  /** The rest of the network: a prediction [at least c channels, n, h, w]. */
  readonly predict: (graph: Graph, inputs: SampleInputs) => Value;
}

/** A level with its coefficients for the image and for the network's output. */
export interface NoiseLevel extends Level {
  readonly coefficients: Coefficients;
}

/**
 * Either `count` noises [count, c, h, w], or the seed from which noise k is recomputed wherever it is needed, for
 * evaluations without a seed of their own.
 */
export type Noise = { readonly seed: bigint } | { readonly values: Float32Array; readonly count: number };

/** Returns a function that packs the noise indices of a batch with the seed of each evaluation: its own, or `noise`'s. */
export const noiseKeysOf = (
  noise: Noise,
): ((batch: Pick<Views, 'noise' | 'seed'>) => Uint32Array<ArrayBuffer>) => {
  const own = 'seed' in noise ? noise.seed : 0n;
  return (batch) => noiseKeys(batch.noise, (i) => batch.seed?.[i] ?? own);
};

export interface EvaluationOptions {
  readonly levels: readonly NoiseLevel[];
  readonly noise: Noise;
  readonly distance: Distance;
  /** What errors are distances of. Default: the noise. */
  readonly residual?: Residual | undefined;
  /** Number of images that can be on the device at once. */
  readonly slots: number;
}

/** Adds inputs [1, count, 1, 1] for indices. */
const indices = (graph: Graph, count: number, ...names: string[]): Value[] =>
  names.map((name) => input(graph, name, [1, count, 1, 1]));

/** Adds an input [1, count, 1, 4] for rows of `noiseKeys`. */
const noiseInput = (graph: Graph, count: number, name = 'noise'): Value =>
  input(graph, name, [1, count, 1, 4]);

/**
 * Returns how to trace the two ends of an evaluation: noising the images in the input `slots`, and their errors; and how to
 * trace the rows of the images in the input `imageRows`.
 */
function endsOf(
  graph: Graph,
  { image, imageRow }: Network,
  { levels, noise, distance, residual, slots: count }: EvaluationOptions,
) {
  const [c, h, w] = image;
  const slots = input(graph, 'slots', [1, count, 1, c * h * w]);
  const imageRows = imageRow && input(graph, 'imageRows', [1, count, 1, imageRow.length]);
  const rows = levels.flatMap(({ coefficients: { a, b, alpha, beta } }) => [a, b, alpha, beta]);
  const given = 'values' in noise ? noise : undefined;
  const source: NoiseSource = given ? { kind: 'table', count: given.count } : { kind: 'philox' };
  const constants = {
    levels: table('levels', Float32Array.from(rows)),
    noises: given && table('noises', given.values),
  };
  return {
    noised: (at: { slot: Value; level: Value; noise: Value }) =>
      apply(graph, 'mix', { noise: source, image }, { slots, ...at }, constants),
    rows: (slot: Value) =>
      imageRows &&
      apply(graph, 'flatten', {}, { x: apply(graph, 'pickSamples', {}, { x: imageRows, index: slot }) }),
    errors: (inputs: { prediction: Value; xt: Value; level: Value; noise: Value }) =>
      apply(graph, 'errors', { noise: source, distance, residual, channels: c }, inputs, constants),
  };
}

/**
 * Traces the whole evaluation of n samples. The graph has the output `error`, the inputs `slot`, `level` and `label`
 * [1, n, 1, 1], and the input `noise` [1, n, 1, 4] (see `noiseKeys`). If candidates share a part of the network, that part
 * is computed from the inputs `viewSlot` and `viewLevel` [1, views, 1, 1] and `viewNoise` [1, views, 1, 4]; the input
 * `view` [1, n, 1, 1] then has the view of each sample and takes the place of `slot`.
 */
export function trace(network: Network, options: EvaluationOptions, n: number, views = n): Graph {
  return network.shared
    ? traceViews({ ...network, shared: network.shared }, options, n, views).graph
    : traceEach(network, options, n).graph;
}

/** Traces `trace` for a network with a shared part. Also returns the noised images `viewed` [c, views, h, w]. */
export function traceViews(
  network: Network & Required<Pick<Network, 'shared'>>,
  options: EvaluationOptions,
  n: number,
  views: number,
): { readonly graph: Graph; readonly viewed: Value; readonly error: Value } {
  const graph = newGraph();
  const [level, label] = indices(graph, n, 'level', 'label') as [Value, Value];
  const noise = noiseInput(graph, n);
  const [slot, viewLevel] = indices(graph, views, 'viewSlot', 'viewLevel') as [Value, Value];
  const viewNoise = noiseInput(graph, views, 'viewNoise');
  const [view] = indices(graph, n, 'view') as [Value];
  const { noised, rows, errors } = endsOf(graph, network, options);
  const repeated = (x: Value) => apply(graph, 'pickSamples', {}, { x, index: view });
  const viewed = noised({ slot, level: viewLevel, noise: viewNoise });
  const { take = (_: Graph, x: Value) => repeated(x) } = network;
  const shared = network
    .shared(graph, viewed, viewLevel, rows(slot))
    .map((x) => take(graph, x, { view, label }));
  const xt = repeated(viewed);
  const prediction = network.predict(graph, { xt, level, label, shared });
  const error = errors({ prediction, xt, level, noise });
  output(graph, 'error', error);
  return { graph, viewed, error };
}

/** Traces the shared part of the network for every sample separately. */
const sharedByEach = (
  graph: Graph,
  { shared, take }: Network,
  {
    xt,
    level,
    label,
    row,
  }: Pick<SampleInputs, 'xt' | 'level' | 'label'> & { readonly row?: Value | undefined },
): readonly Value[] =>
  (shared?.(graph, xt, level, row) ?? []).map((x) => (take ? take(graph, x, { label }) : x));

/** Traces `trace` with no part shared. Also returns the noised images `xt` [c, n, h, w]. */
export function traceEach(
  network: Network,
  options: EvaluationOptions,
  n: number,
): { readonly graph: Graph; readonly xt: Value; readonly error: Value } {
  const graph = newGraph();
  const [level, label] = indices(graph, n, 'level', 'label') as [Value, Value];
  const noise = noiseInput(graph, n);
  const [slot] = indices(graph, n, 'slot') as [Value];
  const { noised, rows, errors } = endsOf(graph, network, options);
  const xt = noised({ slot, level, noise });
  const shared = sharedByEach(graph, network, { xt, level, label, row: rows(slot) });
  const prediction = network.predict(graph, { xt, level, label, shared });
  const error = errors({ prediction, xt, level, noise });
  output(graph, 'error', error);
  return { graph, xt, error };
}

/**
 * Traces the network alone, with the inputs `xt` [c, n, h, w], `level` and `label` [1, n, 1, 1]. The output `prediction`
 * [c, n, h, w] has the channels of the image only.
 */
export function tracePrediction(
  network: Network,
  n: number,
): { readonly graph: Graph; readonly xt: Value; readonly prediction: Value } {
  const graph = newGraph();
  const [c, h, w] = network.image;
  const [level, label] = indices(graph, n, 'level', 'label') as [Value, Value];
  const xt = input(graph, 'xt', [c, n, h, w]);
  const shared = sharedByEach(graph, network, { xt, level, label });
  const whole = network.predict(graph, { xt, level, label, shared });
  const prediction = whole.shape[0] > c ? apply(graph, 'slice', { from: 0, count: c }, { x: whole }) : whole;
  output(graph, 'prediction', prediction);
  return { graph, xt, prediction };
}
