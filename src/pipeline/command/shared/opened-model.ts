// A model that is opened before the stream of images that will use it.

import type { Model } from '../../../graph/model.ts';
import type { OpenModelOptions } from '../../../graph/models/open-model.ts';
import type { OpenFolder } from './model-choice.ts';

/** Opens a model at once, so that its faults show before any output is touched, and again when asked to. */
export async function opener(openModel: OpenFolder, folder: string, options: OpenModelOptions) {
  const model = await openModel(folder, options);
  let unused: Model | undefined = model;
  const open = async (wanted?: { readonly batchSize: number }) => {
    const first = unused;
    unused = undefined;
    return first ?? openModel(folder, { ...options, ...wanted });
  };
  /** Closes the model unless somebody has taken it over. */
  const close = () => unused?.close();
  return { model, open, close };
}
