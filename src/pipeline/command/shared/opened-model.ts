// Models that are opened before the stream of images that will use them.

import type { Model } from '../../../graph/model.ts';
import type { OpenModelOptions } from '../../../graph/models/open-model.ts';
import type { OpenModel } from '../../stream/batcher.ts';
import { denoisingBy, imagesInFlight } from '../../stream/denoising.ts';
import { stepsBy } from '../../stream/purify-images.ts';
import { acquire } from '../../stream/sharing.ts';
import type { OpenFolder } from './model-choice.ts';
import { hostNoise, type PurifyingSettings, purifierOptions } from './purify-settings.ts';

/** A model that is open. */
export interface OpenedModel {
  readonly model: Model;
  /** Hands the model over at the first call; opens it again at later ones. */
  readonly open: OpenModel;
  /** Closes the model unless it was handed over. */
  readonly close: () => void;
}

/** Opens a model before it is needed, so that what is wrong with it shows before any output is touched. */
export async function openAhead(
  openModel: OpenFolder,
  folder: string,
  options: OpenModelOptions,
): Promise<OpenedModel> {
  const model = await openModel(folder, options);
  let unused: Model | undefined = model;
  return {
    model,
    async open(request) {
      const first = unused;
      unused = undefined;
      return first ?? openModel(folder, { ...options, ...request });
    },
    close: () => unused?.close(),
  };
}

/** The network of a purification that is open, with the noise of its file. */
export interface OpenedPurification extends OpenedModel {
  readonly noise: Float32Array | undefined;
}

/** Opens the network of a purification. @throws UsageError, UnsupportedError or ModelError if it does not fit. */
export async function openPurification(
  purifying: PurifyingSettings,
  settings: Parameters<typeof purifierOptions>[1],
  folder: string,
  openModel: OpenFolder,
): Promise<OpenedPurification> {
  const opened = await openAhead(openModel, folder, await purifierOptions(purifying, settings));
  try {
    const noise = await hostNoise(purifying, opened.model);
    stepsBy(opened.model, { ...purifying, noise });
    return { ...opened, noise };
  } catch (error) {
    opened.close();
    throw error;
  }
}

/** Opens the network of a purification, with the steps of each draw of its noise. @throws what `openPurification` throws. */
export async function openPurifier(...request: Parameters<typeof openPurification>) {
  const [purifying] = request;
  const { noise, open } = await openPurification(...request);
  const { batcher, release } = await acquire(open);
  const { name, inputShape } = batcher.model;
  return {
    name,
    inputShape,
    denoising: denoisingBy(batcher),
    /** Images whose steps together keep the network's batches full. */
    concurrency: imagesInFlight(batcher),
    stepsOf: (draw: number) => stepsBy(batcher.model, { ...purifying, noise, draw }),
    close: release,
  };
}
