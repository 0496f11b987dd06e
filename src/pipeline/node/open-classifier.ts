// Opens a classifier of a model on disk, which reads images from anywhere.

import { type OpenModelOptions, openModel } from '../../graph/models/open-model.ts';
import { type Classifier, classifierOf } from '../classifying/classifier.ts';
import type { OpenModel } from '../stream/batcher.ts';
import { acquire } from '../stream/sharing.ts';
import { itemFrom } from './image-from.ts';

/** How to open a classifier. Options of a run (strategy, budget, seed, topK, signal) go with each call instead. */
export interface OpenClassifierOptions extends OpenModelOptions {}

/**
 * Opens a classifier: a shipped model by its name, a model folder by its path, or what `model` opens.
 *
 * @param model name, path, or a function that opens a model, again after a lost device.
 * @param options the device, candidates, levels and the rest that is settled once (see `OpenModelOptions`).
 * @throws ModelError for a folder that is not in order, NoDeviceError where there is no usable device.
 *
 * @example
 * import { openClassifier } from 'diffclass-stream';
 *
 * const classifier = await openClassifier('fashion-mnist-multi-head');
 * const { label, probability } = await classifier.classify('photo.png');
 * console.log(label, probability);
 * await classifier.close();
 */
export async function openClassifier(
  model: string | OpenModel,
  options: OpenClassifierOptions = {},
): Promise<Classifier> {
  const open: OpenModel =
    typeof model === 'function' ? model : (request) => openModel(model, { ...options, ...request });
  return classifierOf(await acquire(open), itemFrom);
}
