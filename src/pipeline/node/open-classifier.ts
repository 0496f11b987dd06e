// Opens a classifier of a model on disk, which reads images from anywhere.

import type { OpenModelOptions } from '../../graph/models/open-model.ts';
import { openModel } from '../../graph/node/open-model.ts';
import { type Classifier, classifierOf } from '../classifying/classifier.ts';
import type { OpenModel } from '../stream/batcher.ts';
import { acquire } from '../stream/sharing.ts';
import { itemFrom } from './image-from.ts';

/** How to open a classifier. Options of a run (strategy, budget, seed, topK, signal) are passed to each call instead. */
export interface OpenClassifierOptions extends OpenModelOptions {}

/**
 * Opens a classifier: a shipped model by its name, a model folder by its path, or the model that a function opens.
 *
 * @param model a name, a path, or a function that opens a model, again after a lost device.
 * @param options the device, candidates, levels and all else that is fixed when opening (see `OpenModelOptions`).
 * @return the classifier. Close it at the end.
 * @throws ModelError if the folder is not a valid model, NoDeviceError if there is no usable device.
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
