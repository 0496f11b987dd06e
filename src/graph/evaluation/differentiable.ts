// Gradients of errors, predictions of the network, and products with its Jacobian, for networks of images. Each is a
// graph of its own, which is planned when it is first needed.

import type { Device } from '../../kernels/device/device.ts';
import { fromChannelMajor, joined, type Shape, toChannelMajor } from '../../kernels/device/tensor.ts';
import { costOf } from '../core/cost.ts';
import { differentiate } from '../core/gradient.ts';
import { type Graph, input, output } from '../core/graph.ts';
import { openRunner, type Runner, type RunnerOptions, type RunSize } from '../core/runner.ts';
import type { Differentiable, PredictionBatch } from '../model.ts';
import type { Value } from '../ops/value.ts';
import {
  type EvaluationOptions,
  type Network,
  noiseKeysOf,
  traceEach,
  tracePrediction,
  traceViews,
} from './evaluation.ts';

/** How to evaluate a network and its derivatives. */
export interface DifferentiableOptions
  extends EvaluationOptions,
    Pick<RunnerOptions, 'weights' | 'weightDtype' | 'precision' | 'external'> {
  /** The network's class of each candidate. */
  readonly labels: readonly number[];
  /** The largest number of samples in a batch; halved if memory does not suffice. */
  readonly batchSize: number;
  /**
   * The largest number of bytes for the activations of a batch of gradients. Default: 1 GiB. If a batch takes more, half of
   * it is tried, down to 8 samples; then some activations are recomputed in the backward pass (`GradientOptions.bytes`).
   */
  readonly gradientBytes?: number | undefined;
}

const GRADIENT_BYTES = 2 ** 30;

/** Batches of at most this size are not halved further: recomputing activations then costs less. */
const LEAST_BATCH = 8;

/** Adds the gradient with respect to `x` of `of`, weighted by the new input `seed`, as the output `gradient`. */
function addGradient(graph: Graph, of: Value, seed: string, x: Value, bytes: number | undefined): Graph {
  const seeds = [{ of, gradient: input(graph, seed, of.shape) }];
  const { values } = differentiate(graph, { seeds, values: [x], bytes });
  output(graph, 'gradient', values.get(x.id)!);
  return graph;
}

/** Traces the errors of n samples, and the gradient with respect to x_t [c, n, h, w] of their sum weighted by `seed`. */
export function traceGradients(
  network: Network,
  options: EvaluationOptions,
  n: number,
  bytes?: number,
): Graph {
  const { graph, xt, error } = traceEach(network, options, n);
  return addGradient(graph, error, 'seed', xt, bytes);
}

/**
 * Traces the gradient with respect to the noised images [c, views, h, w] of the sum of the errors of n samples, weighted
 * by the input `seed`.
 */
export function traceViewGradients(
  network: Network & Required<Pick<Network, 'shared'>>,
  options: EvaluationOptions,
  { samples, views }: RunSize,
  bytes?: number,
): Graph {
  const { graph, viewed, error } = traceViews(network, options, samples, views);
  graph.outputs.clear();
  return addGradient(graph, error, 'seed', viewed, bytes);
}

/** Traces Jᵀ·v, where J is the network's Jacobian at the input `xt`, and v the input `cotangent`, both [c, n, h, w]. */
function tracePullBack(network: Network, n: number, bytes?: number): Graph {
  const { graph, xt, prediction } = tracePrediction(network, n);
  graph.outputs.clear();
  return addGradient(graph, prediction, 'cotangent', xt, bytes);
}

/** Runs a network's derivatives on a device. `destroy` frees their memory there. */
export function differentiable(
  device: Device,
  network: Network,
  options: DifferentiableOptions,
): Differentiable & { readonly bytes: () => number; readonly destroy: () => void } {
  const { levels, labels, gradientBytes = GRADIENT_BYTES } = options;
  const [c, h, w] = network.image;
  const rowLength = c * h * w;
  const keys = noiseKeysOf(options.noise);
  const opening = new Map<string, Promise<Runner>>();
  const opened: Runner[] = [];
  let fitting: number | undefined;
  /** Returns the largest batch, halved as often as needed, whose gradients fit in `gradientBytes`. */
  const batchSize = (): number => {
    if (fitting !== undefined) return fitting;
    const sample = costOf(traceGradients(network, options, 1)).activationBytes;
    fitting = options.batchSize;
    while (fitting > LEAST_BATCH && fitting * sample > gradientBytes) fitting = Math.ceil(fitting / 2);
    return fitting;
  };

  /** Returns the runner of a graph. `sharing` is the number of candidates per view if they share all of the network. */
  const runnerOf = (kind: string, trace: (size: RunSize) => Graph, sharing?: number): Promise<Runner> => {
    let runner = opening.get(kind);
    if (!runner) {
      const sizes = sharing ? { largest: batchSize() * sharing, sharing } : { largest: batchSize() };
      // Gradients are f32: those of errors are so small that f16 would flush many of their parts to zero.
      const precision = kind === 'predict' ? options.precision : 'f32';
      runner = openRunner(device, { ...options, precision, trace, ...sizes }).then((ready) => {
        opened.push(ready);
        fitting = Math.min(batchSize(), ready.views);
        return ready;
      });
      opening.set(kind, runner);
      runner.catch(() => opening.delete(kind));
    }
    return runner;
  };

  /** Splits a batch into as many parts as it takes, and runs all of them at once. */
  async function inParts<Part>(
    runner: Runner,
    count: number,
    run: (from: number, to: number, size: RunSize) => Promise<Part>,
  ): Promise<Part[]> {
    const parts: Promise<Part>[] = [];
    for (let from = 0; from < count; from += runner.samples) {
      const to = Math.min(count, from + runner.samples);
      parts.push(run(from, to, runner.fitting(to - from)!));
    }
    return Promise.all(parts);
  }

  const labelsOf = (candidate: Uint32Array) => Uint32Array.from(candidate, (index) => labels[index]!);
  const shapeOf = ({ samples }: RunSize): Shape => [c, samples, h, w];
  /** Converts rows to the storage of a batch, padded with 0, and the first `count` rows of storage back. */
  const toStorage = (rows: Float32Array, size: RunSize) => {
    const whole = new Float32Array(size.samples * rowLength);
    whole.set(rows);
    return toChannelMajor(whole, shapeOf(size));
  };
  const fromStorage = (storage: Float32Array, size: RunSize, count: number) =>
    fromChannelMajor(storage, shapeOf(size)).subarray(0, count * rowLength);
  /** Returns rows alpha x + beta y, with the coefficients of each row's level. */
  const combined = (level: Uint32Array, x: Float32Array, y: Float32Array): Float32Array =>
    x.map((value, k) => {
      const { alpha, beta } = levels[level[Math.floor(k / rowLength)]!]!.coefficients;
      return alpha * value + beta * y[k]!;
    });

  const check = (name: string, rows: Float32Array, { level }: PredictionBatch): void => {
    if (rows.length !== level.length * rowLength)
      throw new RangeError(
        `${name}: expected ${level.length * rowLength} values (${level.length} images of ${rowLength}), got ${rows.length}`,
      );
  };
  /** Runs a graph of the network alone on the rows of a batch, by input, and returns the rows of its output `name`. */
  async function onRows(
    kind: string,
    trace: (size: RunSize) => Graph,
    { candidate, level }: PredictionBatch,
    rows: Readonly<Record<string, Float32Array>>,
    name: string,
  ): Promise<Float32Array> {
    const runner = await runnerOf(kind, trace);
    const parts = await inParts(runner, level.length, async (from, to, size) => {
      const inputs: Record<string, Uint32Array | Float32Array> = {
        level: level.slice(from, to),
        label: labelsOf(candidate.slice(from, to)),
      };
      for (const [key, values] of Object.entries(rows))
        inputs[key] = toStorage(values.subarray(from * rowLength, to * rowLength), size);
      const results = await runner.run(size, inputs, [name]);
      return fromStorage(results[name]!, size, to - from);
    });
    return joined(parts);
  }

  const { shared, take } = network;
  const viewGradients: Differentiable['viewGradients'] =
    shared &&
    take &&
    (async ({ slot, level, noise, seed }, { view, candidate, weight }) => {
      const trace = (size: RunSize) =>
        traceViewGradients({ ...network, shared }, options, size, gradientBytes);
      const runner = await runnerOf('viewGradients', trace, labels.length);
      const parts: Promise<Float32Array>[] = [];
      let first = 0;
      for (let from = 0; from < slot.length; from += runner.views) {
        const to = Math.min(slot.length, from + runner.views);
        let last = first;
        while (last < view.length && view[last]! < to) last++;
        const size = runner.fitting(last - first, to - from)!;
        const of = view.slice(first, last);
        const inputs = {
          viewSlot: slot.slice(from, to),
          viewLevel: level.slice(from, to),
          viewNoise: keys({ noise: noise.slice(from, to), seed: seed?.slice(from, to) }),
          view: of.map((index) => index - from),
          level: of.map((index) => level[index]!),
          noise: keys({
            noise: of.map((index) => noise[index]!),
            seed: seed && BigUint64Array.from(of, (index) => seed[index]!),
          }),
          label: labelsOf(candidate.slice(first, last)),
          seed: weight.slice(first, last).map((value, i) => value * levels[level[of[i]!]!]!.coefficients.a),
        };
        const rows = { samples: size.views, views: size.views };
        parts.push(
          runner
            .run(size, inputs, ['gradient'])
            .then(({ gradient }) => fromStorage(gradient!, rows, to - from)),
        );
        first = last;
      }
      return joined(await Promise.all(parts));
    });

  return {
    ...(viewGradients && { viewGradients }),
    get viewBatchSize() {
      return batchSize();
    },
    mixes: levels.map(({ coefficients: { a, b } }) => ({ a, b })),
    get gradientBatchSize() {
      return batchSize();
    },
    async gradients({ slot, candidate, level, noise, seed }) {
      const runner = await runnerOf('gradients', ({ samples }) =>
        traceGradients(network, options, samples, gradientBytes),
      );
      const parts = await inParts(runner, slot.length, async (from, to, size) => {
        const inputs = {
          slot: slot.slice(from, to),
          level: level.slice(from, to),
          noise: keys({ noise: noise.slice(from, to), seed: seed?.slice(from, to) }),
          label: labelsOf(candidate.slice(from, to)),
          // d x_t / d x0 = a; samples that only pad the batch have 0.
          seed: Float32Array.from(level.subarray(from, to), (index) => levels[index]!.coefficients.a),
        };
        const results = await runner.run(size, inputs, ['error', 'gradient']);
        return {
          errors: results.error!.subarray(0, to - from),
          gradients: fromStorage(results.gradient!, size, to - from),
        };
      });
      return {
        errors: joined(parts.map(({ errors }) => errors)),
        gradients: joined(parts.map(({ gradients }) => gradients)),
      };
    },
    async predict(batch) {
      const { xt, level } = batch;
      check('xt', xt, batch);
      const trace = ({ samples }: RunSize) => tracePrediction(network, samples).graph;
      return combined(level, await onRows('predict', trace, batch, { xt }, 'prediction'), xt);
    },
    async pullBack(batch) {
      const { xt, level, cotangent } = batch;
      check('xt', xt, batch);
      check('cotangent', cotangent, batch);
      const trace = ({ samples }: RunSize) => tracePullBack(network, samples, gradientBytes);
      const pulled = await onRows('pullBack', trace, batch, { xt, cotangent }, 'gradient');
      return combined(level, pulled, cotangent);
    },
    bytes: () => opened.reduce((sum, runner) => sum + runner.bytes(), 0),
    destroy() {
      for (const runner of opening.values())
        runner.then(
          (ready) => ready.destroy(),
          () => undefined,
        );
    },
  };
}
