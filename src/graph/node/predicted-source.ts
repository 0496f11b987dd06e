// The files of a model that is opened, whose files say what its network predicts: if they did not, it is measured.

import { basename } from 'node:path';
import { z } from 'zod';
import type { MeasuredPrediction } from '../checkpoints/prediction.ts';
import type { Files } from '../files/files.ts';
import { decidePrediction, measurePrediction } from '../models/measure-prediction.ts';
import type { LoadOptions, OpenModelOptions } from '../models/open-model.ts';
import { modelDigest } from './model-digest.ts';
import { modelFiles, modelSource } from './model-source.ts';

/** The scope of the cache that remembers what models predict. */
const PREDICTIONS = 'predictions';
const REMEMBERED = z.object({ epsilonError: z.number(), vError: z.number() });

/** Measures what a model predicts, at its first opening; later ones remember it. */
async function measured(files: Files, load: LoadOptions, key: string): Promise<MeasuredPrediction> {
  const remembered = REMEMBERED.safeParse((await load.cache?.read(PREDICTIONS))?.get(key));
  if (remembered.success)
    return decidePrediction(files.describe(''), remembered.data.epsilonError, remembered.data.vError);
  const found = await measurePrediction(files, load);
  await load.cache?.write(PREDICTIONS, key, found);
  return found;
}

/** A model's files, and what a record says of the options that changed them. */
interface PredictedSource {
  readonly files: Files;
  readonly overlays: Readonly<Record<string, string>>;
}

/**
 * Finds the files of a model. `fingerprint` identifies them for the cache.
 * @throws ModelError if there is no such model, or a measurement is not clear.
 */
export async function predictedSource(
  model: string | Files,
  options: OpenModelOptions,
  load: LoadOptions,
  fingerprint: (files: Files) => Promise<string>,
): Promise<PredictedSource> {
  const { files, isPredictionUnknown } = await modelSource(model, options);
  const { vae, prediction: given, imageSize } = options;
  const overlays = {
    ...(given && { prediction: given }),
    ...(vae !== undefined && { vae: `${basename(vae)} ${await modelDigest(vae)}` }),
  };
  if (!isPredictionUnknown) return { files, overlays };
  const key = [await fingerprint(files), imageSize ?? '', overlays.vae ?? ''].join(' ');
  const found = await measured(files, load, key);
  options.onPrediction?.(found);
  const { prediction } = found;
  return {
    files: await modelFiles(model, { ...options, prediction }),
    overlays: { ...overlays, prediction: `${prediction} (measured)` },
  };
}
