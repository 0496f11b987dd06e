// Measures the shipped models in the whole pipeline on this device: images per second, the share of time in which the
// device was idle, and the time until the first label.
import { openModel } from '../../src/graph/node/open-model.ts';
import { openDevice } from '../../src/kernels/device/device.ts';
import { idle } from '../../src/kernels/device/runtime.ts';
import { occupancyOf, recordPasses } from '../../src/kernels/device/timestamps.ts';
import { classifyImages } from '../../src/pipeline/classifying/classify-images.ts';
import type { ImageItem } from '../../src/pipeline/types.ts';
import { randomUniform } from '../random.ts';
import { streamed } from '../test-set.ts';
import { messageOf, type Session, type Step } from './session.ts';
import { folderOf, MODELS } from './shipped-models.ts';

/** Returns different smooth random images in [-1, 1]: sums of a few waves. */
export function syntheticImages(
  count: number,
  [channels, height, width]: readonly [number, number, number],
): ImageItem[] {
  const random = randomUniform(7);
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

/** Measures the images per second of the product's own classifier, and the share of time in which the device was idle. */
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
    const opening = performance.now();
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
        /** Classifies until the images or the time are used up. Images in flight at the end do not count. */
        const run = async (items: readonly ImageItem[], milliseconds: number) => {
          const sum = { done: 0, evaluations: 0, undecided: 0, ms: 0 };
          const start = performance.now();
          const signal = AbortSignal.timeout(Math.max(1, Math.round(milliseconds)));
          try {
            const results = classifyImages(streamed({ images: items }), async () => shared(model), {
              topK: 1,
              signal,
            });
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
        // A run that is cut short finishes few of its images, so it gets only as many as fit into the time.
        const { software } = device.capabilities;
        const warm = await run(images.slice(0, software ? 8 : 64), 0.4 * left());
        if (left() < 1000)
          throw new Error(
            `expected time for a second run, got none: compiling and the first ${warm.done} images took ${((performance.now() - opening) / 1000).toFixed(0)} s`,
          );
        const fitting = Math.floor((0.6 * left() * warm.done) / Math.max(warm.ms, 1));
        // Latency dominates a short run: a long one is several times as fast, unless the device was already busy.
        const growing = software || !warm.complete ? fitting : 4 * fitting;
        const some = images.slice(0, Math.max(8, Math.min(count, growing)));
        await idle(device); // an interrupted run leaves work on the device
        const watched = device.capabilities.timestamps ? recordPasses(device) : undefined;
        const began = performance.now();
        const { done, evaluations, undecided, ms, complete } = await run(some, left() - 500);
        await idle(device);
        const wallMs = performance.now() - began;
        const passes = await watched?.end().catch(() => undefined);
        const occupancy = passes && occupancyOf(passes);
        if (done === 0)
          throw new Error(`expected at least one image in ${(wallMs / 1000).toFixed(1)} s, got none`);
        const result = {
          model: name,
          precision: model.precision,
          batchSize: model.batchSize,
          images: done,
          imagesPerSecond: (1000 * done) / ms,
          evaluationsPerImage: evaluations / done,
          evaluationsPerSecond: (1000 * evaluations) / ms,
          undecided,
          complete,
          wallMs,
          passes: watched?.passes(),
          busyMs: occupancy?.busyMs,
          idleShare: occupancy?.idleShare,
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

/** Returns the model with a `close` that does nothing: every stream closes its model, and here several share one. */
const shared = <T extends { close(): unknown }>(model: T): T =>
  new Proxy(model, {
    get: (target, key) => (key === 'close' ? () => {} : Reflect.get(target, key, target)),
  });

/** Measures the time to the label of a first image, on a new device without compiled pipelines, and of later images. */
export async function firstLabel(session: Session, step: Step): Promise<unknown> {
  const found: unknown[] = [];
  // The first round is completely cold; the second one has the driver's own cache of shaders.
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
          for await (const result of classifyImages(streamed({ images: [image] }), async () => shared(model)))
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
        `${name}, ${round === 0 ? 'cold' : 'on another new device'}: first label after ${result.firstLabelMs.toFixed(0)} ms (device ${result.deviceMs.toFixed(0)}, model ${result.modelMs.toFixed(0)}), warm images ${times
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
