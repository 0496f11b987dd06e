// The shipped models through the whole pipeline on this device: images per second, the share of time in which the device
// was idle, and the time to the first label.
import { openModel } from '../../src/graph/models/open-model.ts';
import { type Device, openDevice } from '../../src/kernels/device/device.ts';
import { idle, readBack } from '../../src/kernels/device/runtime.ts';
import { classifyImages } from '../../src/pipeline/classifying/classify-images.ts';
import type { ImageItem } from '../../src/pipeline/types.ts';
import { randomUniform } from '../random.ts';
import { messageOf, type Session, type Step } from './session.ts';
import { folderOf, MODELS } from './shipped-models.ts';

/** Smooth random images in [-1, 1]: sums of a few waves, one unlike the other. */
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
