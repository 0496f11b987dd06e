// Times purifications, for the dry runs of `purify` and of `classify --purify`.

import { product } from '../../../numbers.ts';
import { statesOf } from '../../purifying/chain.ts';
import type { OpenFolder } from './model-choice.ts';
import { openPurifier } from './opened-model.ts';
import type { PurifyingSettings } from './purify-settings.ts';
import { exactly, secondsOf, timeWork } from './timing.ts';

/**
 * Opens the network of a purification and times whole purifications, as many at once as a run over `images` images has.
 * Returns the times, and the purification for further use.
 *
 * @throws UsageError, UnsupportedError or ModelError if the model, the options and the noise do not fit together.
 */
export async function timePurification(
  purifying: PurifyingSettings,
  settings: Parameters<typeof openPurifier>[1] & { readonly concurrency?: number | undefined },
  images: number,
  folder: string,
  openModel: OpenFolder,
) {
  const begun = performance.now();
  const purifier = await openPurifier(purifying, settings, folder, openModel);
  const { denoising, stepsOf, concurrency, inputShape, name, close } = purifier;
  try {
    const opening = (performance.now() - begun) / 1000;
    const steps = stepsOf(0);
    /** Purifies an image [c, h, w] in [-1, 1]. */
    const purify = async (pixels: Float32Array) => (await statesOf(denoising, steps, pixels)).at(-1)!.x;
    const grey = new Float32Array(product(inputShape));
    const timing = await timeWork({
      run: (count) => Promise.all(Array.from({ length: count }, () => purify(grey))),
      fill: Math.max(1, Math.min(images, settings.concurrency ?? concurrency)),
    });
    /** Seconds per image. */
    const seconds = secondsOf(timing, exactly(1));
    /** Seconds that are spent once: opening the network and compiling. */
    const once = opening + timing.once;
    return { model: name, steps: steps.length, timing, seconds, once, purify, close };
  } catch (error) {
    close();
    throw error;
  }
}
