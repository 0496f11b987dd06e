// Classifies a few images for real, for `classify --dry-run`.

import { classifyImages } from '../../../classifying/classify-images.ts';
import type { ClassifyOptions } from '../../../operators/classify-options.ts';
import type { OpenModel } from '../../../stream/batcher.ts';
import { type ImageItem, type ItemFailure, isFailure } from '../../../types.ts';

/** The work that images took which were classified for real, as means over them. */
export interface Sample {
  readonly images: number;
  readonly evaluations: number;
  readonly views: number;
  /** Seconds to read and decode an image. */
  readonly loading: number;
  /** Seconds that the first image took longer than later ones with as many evaluations: smaller batches are compiled. */
  readonly once: number;
}

/** The number of images in a sample at most. */
export const SAMPLE = 8;

/** Seconds after which no further image of a sample is begun. */
const PATIENCE = 20;

/** Seconds after which a sample that is still running is given up. */
const TOO_LONG = 60;

/**
 * Classifies images for real, one after the other, to see how many evaluations they need. No further image is begun after
 * `PATIENCE`. Returns undefined if none can be classified in time. The model is closed afterwards.
 */
export async function sampleOf(
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
