// The shipped models on this device: evaluations per second by batch, a gradient, the whole pipeline from pixels to
// labels with the share of time in which the device had nothing to do, and the time to the first label.

import { join } from 'node:path';
import { costOf } from '../../src/graph/core/cost.ts';
import type { Graph } from '../../src/graph/core/graph.ts';
import { plan } from '../../src/graph/core/plan.ts';
import { weightStore } from '../../src/graph/core/weight-store.ts';
import { traceGradients, traceViewGradients } from '../../src/graph/evaluation/differentiable.ts';
import { trace } from '../../src/graph/evaluation/evaluation.ts';
import { type LoadedModel, loadModel, openModel } from '../../src/graph/models/open-model.ts';
import { type Device, openDevice } from '../../src/kernels/device/device.ts';
import { checked, createStorage, idle, readBack } from '../../src/kernels/device/runtime.ts';
import { classifyImages } from '../../src/pipeline/classifying/classify-images.ts';
import type { ImageItem } from '../../src/pipeline/types.ts';
import { fillRandom } from './random-weights.ts';
import { messageOf, type Session, type Step } from './session.ts';
import { measure, type Profile, profile } from './timing.ts';

export const MODELS = ['fashion-mnist', 'fashion-mnist-multi-head', 'cifar-10'] as const;

const folderOf = ({ options }: Session, model: string): string => join(options.root, 'weights', model);

interface Timed {
  readonly ms: number;
  readonly wallMs: number;
  readonly firstMs: number;
  readonly flop: number;
  readonly launches: number;
  readonly activationMiB: number;
  readonly profile?: Profile;
}

/** Plans a graph of a model and times its run. */
async function timeGraph(
  device: Device,
  step: Step,
  { network, evaluation }: LoadedModel,
  graph: Graph,
  withProfile = false,
): Promise<Timed> {
  const pixels = network.image.reduce((product, side) => product * side, 1);
  const size = 4 * evaluation.slots * pixels;
  const slots = createStorage(device, size, fillRandom(new Float32Array(size / 4)), 'slots');
  const weights = weightStore(device);
  try {
    const made = await checked(device, () =>
      plan(device, graph, {
        weights,
        weightDtype: evaluation.weightDtype,
        external: { slots: { buffer: slots, offset: 0, size: slots.size } },
      }),
    );
    try {
      const { ms, wallMs, firstMs } = await measure(device, made.launches, {
        samples: 5,
        sampleMs: 50,
        left: step.left,
      });
      return {
        ms,
        wallMs,
        firstMs,
        flop: costOf(graph).flop,
        launches: made.launches.length,
        activationMiB: made.bytes / 2 ** 20,
        ...(withProfile && step.left() > 4 * wallMs
          ? { profile: await profile(device, made.launches, { top: 15, left: step.left }) }
          : {}),
      };
    } finally {
      made.destroy();
    }
  } finally {
    weights.destroy();
    slots.destroy();
  }
}

/** Returns the sizes of a batch. In multi-head models one network run (a view) gives a sample for every class. */
function sizeOf({ network, evaluation }: LoadedModel, batch: number): { views: number; samples: number } {
  return { views: batch, samples: network.take ? batch * evaluation.candidates.length : batch };
}

export async function timeModels(
  session: Session,
  step: Step,
  batches: readonly number[],
  gflops: number,
): Promise<unknown> {
  const found: Record<string, unknown> = {};
  let rate = 0.1 * gflops;
  const budget = step.left();
  for (const [i, name] of MODELS.entries()) {
    const results: unknown[] = [];
    found[name] = { results };
    // Models that come later keep their share of the time.
    const until = budget * (1 - (i + 1) / MODELS.length);
    for (const batch of batches) {
      const left = (): number => step.left() - until;
      if (left() <= 0) break;
      let model: LoadedModel | undefined;
      try {
        model = await loadModel(folderOf(session, name), { batchSize: batch });
        const { views, samples } = sizeOf(model, batch);
        const graph = trace(model.network, model.evaluation, samples, views);
        const { flop } = costOf(graph);
        const needed = 5 * (flop / Math.max(rate, 1) / 1e6);
        if (needed > left()) {
          results.push({ batch, flop, skipped: `it would take ${(needed / 1000).toFixed(1)} s` });
          continue;
        }
        const device = await session.device();
        const loaded = model;
        const timed = await session.withErrors(() =>
          timeGraph(device, { ...step, left }, loaded, graph, batch === 1024),
        );
        rate = Math.max(rate, timed.flop / timed.ms / 1e6);
        const runsPerSecond = (1000 * batch) / timed.ms;
        const result = {
          batch,
          candidates: model.evaluation.candidates.length,
          ...timed,
          runsPerSecond,
          evaluationsPerSecond: (1000 * samples) / timed.ms,
          gflops: timed.flop / timed.ms / 1e6,
          shareOfFlops: timed.flop / timed.ms / 1e6 / gflops,
        };
        results.push(result);
        step.say(
          `${name} batch ${batch}: ${timed.ms.toFixed(3)} ms, ${runsPerSecond.toFixed(0)} network runs/s, ${result.gflops.toFixed(0)} GFLOP/s (${(100 * result.shareOfFlops).toFixed(1)} %), ${timed.launches} launches`,
        );
      } catch (error) {
        results.push({ batch, error: messageOf(error) });
        step.say(`${name} batch ${batch}: ${messageOf(error).slice(0, 200)}`);
      } finally {
        await model?.close();
      }
      step.keep(found);
    }
  }
  return found;
}

/** A gradient next to the run it is of: all candidates of each view, as attacks ask for them. */
export async function timeGradients(
  session: Session,
  step: Step,
  batches: readonly number[],
): Promise<unknown> {
  const results: unknown[] = [];
  const name = 'fashion-mnist-multi-head';
  for (const batch of batches) {
    if (step.over()) break;
    const model = await loadModel(folderOf(session, name), { batchSize: batch });
    try {
      const device = await session.device();
      const { network, evaluation } = model;
      const { views, samples } = sizeOf(model, batch);
      const forward = await timeGraph(device, step, model, trace(network, evaluation, samples, views));
      const { shared } = network;
      const graph = shared
        ? traceViewGradients({ ...network, shared }, evaluation, { samples, views })
        : traceGradients(network, evaluation, samples);
      if (3 * 4 * forward.ms > step.left()) {
        results.push({ batch, forwardMs: forward.ms, skipped: 'it does not fit the time that is left' });
        break;
      }
      const gradient = await session.withErrors(() => timeGraph(device, step, model, graph, true));
      const ratio = gradient.ms / forward.ms;
      results.push({ batch, forwardMs: forward.ms, gradientMs: gradient.ms, ratio, forward, gradient });
      step.say(
        `gradient of ${batch} views: ${gradient.ms.toFixed(2)} ms, ${ratio.toFixed(2)} times the forward run of ${forward.ms.toFixed(2)} ms`,
      );
    } catch (error) {
      results.push({ batch, error: messageOf(error) });
    } finally {
      await model.close();
    }
    step.keep({ model: name, results });
  }
  return { model: name, results };
}

/** Smooth random images in [-1, 1]: sums of a few waves, one unlike the other. */
export function syntheticImages(
  count: number,
  [channels, height, width]: readonly [number, number, number],
): ImageItem[] {
  let state = 7;
  const random = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  return Array.from({ length: count }, (_, index) => {
    const waves = Array.from({ length: 3 }, () => [0.6 * random(), 0.6 * random(), 6.3 * random()] as const);
    const pixels = new Float32Array(channels * height * width);
    let at = 0;
    for (let c = 0; c < channels; c++)
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++) {
          let sum = 0;
          for (const [fx, fy, phase] of waves) sum += Math.sin(fx * x + fy * y + phase + c);
          pixels[at++] = Math.max(-1, Math.min(1, sum / 2));
        }
    return { path: String(index), pixels };
  });
}

const QUERIES = 4096;

/**
 * Makes a device note when each compute pass ran, without the product knowing: its command encoders are wrapped.
 * `busyMs` reads the sum of all passes so far.
 */
function watchPasses(gpu: GPUDevice) {
  const create = gpu.createCommandEncoder.bind(gpu);
  const querySet = gpu.createQuerySet({ type: 'timestamp', count: QUERIES });
  const full: GPUBuffer[] = [];
  let buffer: GPUBuffer | undefined;
  let next = QUERIES;
  let passes = 0;
  gpu.createCommandEncoder = (descriptor) => {
    const encoder = create(descriptor);
    const begin = encoder.beginComputePass.bind(encoder);
    const finish = encoder.finish.bind(encoder);
    const mine: { readonly at: number; readonly to: GPUBuffer }[] = [];
    encoder.beginComputePass = (options) => {
      if (next + 2 > QUERIES) {
        buffer = gpu.createBuffer({ size: 8 * QUERIES * 32, usage: 0x200 | 0x04 });
        full.push(buffer);
        next = 0;
      }
      mine.push({ at: next, to: buffer! });
      const pass = begin({
        ...options,
        timestampWrites: { querySet, beginningOfPassWriteIndex: next, endOfPassWriteIndex: next + 1 },
      });
      next += 2;
      passes++;
      return pass;
    };
    encoder.finish = (options) => {
      // A resolve writes to multiples of 256 bytes, which is 32 stamps.
      for (const { at, to } of mine) encoder.resolveQuerySet(querySet, at, 2, to, 128 * at);
      return finish(options);
    };
    return encoder;
  };
  return {
    passes: () => passes,
    async busyMs(device: Device): Promise<number> {
      gpu.createCommandEncoder = create;
      let sum = 0;
      for (const [i, stamps] of full.entries()) {
        const used = i === full.length - 1 ? next : QUERIES;
        const values = new BigUint64Array(
          await readBack(device, { buffer: stamps, offset: 0, size: stamps.size }),
        );
        for (let at = 0; at < used; at += 2) sum += Number(values[16 * at + 1]! - values[16 * at]!) / 1e6;
        stamps.destroy();
      }
      querySet.destroy();
      return sum;
    },
  };
}

async function* streamOf(images: readonly ImageItem[]): AsyncGenerator<ImageItem> {
  yield* images;
}

/** Images per second of the product's own classifier, and the share of the time in which the device was idle. */
export async function timePipeline(
  session: Session,
  step: Step,
  {
    images: count,
    factors,
  }: {
    readonly images: number;
    /** Batch sizes as multiples of the product's own; the first is 1. */
    readonly factors: readonly number[];
  },
): Promise<unknown> {
  const found: unknown[] = [];
  const budget = step.left();
  const cases = MODELS.flatMap((name) => factors.map((factor) => ({ name, factor })));
  let own = 128;
  for (const [i, { name, factor }] of cases.entries()) {
    const until = budget * (1 - (i + 1) / cases.length);
    const left = (): number => step.left() - until;
    if (step.over()) break;
    try {
      const device = await openDevice();
      session.watch(device, `pipeline ${name}`);
      const model = await openModel(folderOf(session, name), {
        device: device.gpu,
        ...(factor === 1 ? {} : { batchSize: factor * own }),
      });
      if (factor === 1) own = model.batchSize;
      try {
        const images = syntheticImages(count, model.inputShape);
        /** Classifies until the images or the time are over; what was in flight then does not count. */
        const run = async (items: readonly ImageItem[], milliseconds: number) => {
          const sum = { done: 0, evaluations: 0, undecided: 0, ms: 0 };
          const start = performance.now();
          const signal = AbortSignal.timeout(Math.max(1, Math.round(milliseconds)));
          try {
            const results = classifyImages(streamOf(items), async () => shared(model), { topK: 1, signal });
            for await (const result of results) {
              if ('error' in result) throw new Error(result.error.message);
              sum.done++;
              sum.evaluations += result.evaluations;
              if (!result.decided) sum.undecided++;
              sum.ms = performance.now() - start;
            }
          } catch (error) {
            if (!signal.aborted) throw error;
          }
          return { ...sum, complete: sum.done === items.length };
        };
        // In a run that is cut short few images are done, so there are no more than fit.
        const { software } = device.capabilities;
        const warm = await run(images.slice(0, software ? 8 : 64), 0.4 * left());
        const fitting = Math.floor((0.6 * left() * warm.done) / Math.max(warm.ms, 1));
        // Latency rules a short run: a long one is several times as fast, unless the device is busy already.
        const growing = software || !warm.complete ? fitting : 4 * fitting;
        const some = images.slice(0, Math.max(8, Math.min(count, growing)));
        await idle(device); // a run that was cut short leaves work on the device
        const watched = device.capabilities.timestamps ? watchPasses(device.gpu) : undefined;
        const began = performance.now();
        const { done, evaluations, undecided, ms, complete } = await run(some, left() - 500);
        await idle(device);
        const wallMs = performance.now() - began;
        const busyMs = await watched?.busyMs(device).catch(() => undefined);
        if (done === 0) throw new Error(`no image was done in ${(wallMs / 1000).toFixed(1)} s`);
        const result = {
          model: name,
          batchSize: model.batchSize,
          images: done,
          imagesPerSecond: (1000 * done) / ms,
          evaluationsPerImage: evaluations / done,
          evaluationsPerSecond: (1000 * evaluations) / ms,
          undecided,
          complete,
          wallMs,
          passes: watched?.passes(),
          busyMs,
          idleShare: busyMs === undefined ? undefined : 1 - busyMs / wallMs,
        };
        found.push(result);
        step.say(
          `${name} batch ${model.batchSize}: ${result.imagesPerSecond.toFixed(1)} images/s (${done} images, ${result.evaluationsPerImage.toFixed(1)} evaluations each), device idle ${result.idleShare === undefined ? 'unknown' : `${(100 * result.idleShare).toFixed(1)} %`}`,
        );
      } finally {
        model.close();
        device.close();
      }
    } catch (error) {
      found.push({ model: name, factor, error: messageOf(error) });
      step.say(`${name}: ${messageOf(error).slice(0, 200)}`);
    }
    step.keep(found);
  }
  return found;
}

/** The model without its `close`: every stream closes the model that it opens, and here several share one. */
const shared = <T extends { close(): unknown }>(model: T): T =>
  new Proxy(model, {
    get: (target, key) => (key === 'close' ? () => {} : Reflect.get(target, key, target)),
  });

/** From nothing to the label of one image: a fresh device, all pipelines compiled, then again on what is warm. */
export async function firstLabel(session: Session, step: Step): Promise<unknown> {
  const found: unknown[] = [];
  // The first of them is cold in every respect; the second round finds the driver's own cache of shaders.
  for (const [round, name] of [
    'fashion-mnist-multi-head',
    'fashion-mnist-multi-head',
    'cifar-10',
  ].entries()) {
    if (step.over()) break;
    const start = performance.now();
    const device = await openDevice();
    session.watch(device, 'first label');
    try {
      const opened = performance.now();
      const model = await openModel(folderOf(session, name), { device: device.gpu });
      const ready = performance.now();
      const times: number[] = [];
      try {
        const images = syntheticImages(6, model.inputShape);
        for (const image of images) {
          const from = performance.now();
          for await (const result of classifyImages(streamOf([image]), async () => shared(model)))
            if ('error' in result) throw new Error(result.error.message);
          times.push(performance.now() - from);
        }
      } finally {
        model.close();
      }
      const result = {
        model: name,
        round,
        deviceMs: opened - start,
        modelMs: ready - opened,
        firstImageMs: times[0],
        firstLabelMs: ready - start + times[0]!,
        warmImagesMs: times.slice(1),
      };
      found.push(result);
      step.say(
        `${name}, ${round === 0 ? 'cold' : 'again on a fresh device'}: first label after ${result.firstLabelMs.toFixed(0)} ms (device ${result.deviceMs.toFixed(0)}, model ${result.modelMs.toFixed(0)}), warm images ${times
          .slice(1)
          .map((ms) => ms.toFixed(1))
          .join(', ')} ms`,
      );
    } finally {
      device.close();
    }
    step.keep(found);
  }
  return found;
}
