// Optimal denoisers: `config.json` names a file of labelled images, and the images are the model. Levels are sigmas, and
// the closed form predicts the clean image.

import { z } from 'zod';
import { ModelError, UnsupportedError } from '../../../errors.ts';
import type { Files } from '../../files/files.ts';
import { checked } from '../../files/json.ts';
import { openTensorFile, type TensorInfo } from '../../files/safetensors.ts';
import { readCard } from '../../folders/card.ts';
import { namedLabels } from '../../folders/labels.ts';
import { NO_CLASS } from '../../model.ts';
import { visitingOrder } from '../../visiting.ts';
import type { Family, ModelConfig } from '../family.ts';
import { type ImageSetConfig, optimalNetwork } from './optimal-network.ts';

/** The class in `config.json`. */
export const OPTIMAL_CLASS = 'OptimalDenoiser';

/**
 * An optimal denoiser without its images. The file `weights` holds the tensors `images` [n, c, h, w], bytes from 0 to 255
 * or floats in [-1, 1], and `labels` [n], bytes or integers.
 */
interface OptimalConfig extends ModelConfig, ImageSetConfig {}

/** Default noise levels: evenly spaced logarithms, so that equal weights of noise errors are those of the ELBO. */
const SIGMAS: readonly number[] = Array.from({ length: 25 }, (_, i) =>
  Number((0.2 * 20 ** (i / 24)).toPrecision(4)),
);

const schema = z.object({
  _class_name: z.literal(OPTIMAL_CLASS),
  data: z.string().min(1).default('images.safetensors'),
  id2label: z.record(z.string(), z.string()),
});

/** Returns the shape [c, h, w] of the images in a file. @throws ModelError if it does not hold labelled images. */
async function imageShape(files: Files, name: string): Promise<OptimalConfig['image']> {
  const file = await openTensorFile(files, name);
  try {
    const refuse = (expected: string, actual: TensorInfo | undefined) =>
      new ModelError(
        `${file.path}: expected the tensor ${expected}, ${actual ? `got [${actual.shape.join(', ')}] of ${actual.dtype}` : 'it has none'}`,
      );
    const images = file.tensors.get('images');
    const labels = file.tensors.get('labels');
    if (images?.shape.length !== 4 || images.shape.includes(0) || !['U8', 'F32'].includes(images.dtype))
      throw refuse('"images" [n, c, h, w] of U8 or F32', images);
    const [n, c, h, w] = images.shape as [number, number, number, number];
    if (labels?.shape.length !== 1 || labels.shape[0] !== n || !['U8', 'I32', 'I64'].includes(labels.dtype))
      throw refuse(`"labels" [${n}] of U8, I32 or I64`, labels);
    return [c, h, w];
  } finally {
    await file.close();
  }
}

export const optimalFamily: Family<OptimalConfig> = {
  batch: 32,
  onlyF32: true,
  recognise: ({ name, className }) => name === 'config.json' && className === OPTIMAL_CLASS,
  async config(files, { name, json }) {
    const file = files.describe(name);
    const { data: weights, id2label } = checked(schema, json, file);
    return {
      files,
      weights,
      image: await imageShape(files, weights),
      labels: namedLabels(id2label, Object.keys(id2label).length, file),
      card: await readCard(files, undefined),
    };
  },
  images: ({ image }) => ({ inputShape: image }),
  levels: ({ files, card }) => ({
    numTrainTimesteps: 0,
    levels: (card?.sigmas ?? visitingOrder(SIGMAS.length).map((i) => SIGMAS[i]!)).map((sigma, i) => ({
      sigma,
      weight: card?.weights?.[i] ?? 1,
    })),
    residual: 'eps',
    // x_t = x0 + sigma eps, and eps_hat = (x_t - D) / sigma.
    coefficients({ t, sigma }) {
      if (sigma === undefined || !(sigma > 0 && sigma < Number.POSITIVE_INFINITY))
        throw new UnsupportedError(
          `${files.name}: expected a sigma above 0, got ${sigma === undefined ? `timestep ${t}` : `sigma ${sigma}`}`,
        );
      return { a: 1, b: sigma, alpha: -1 / sigma, beta: 1 / sigma };
    },
  }),
  candidates: ({ labels }) => ({ conditioning: 'class', labels, nullClass: labels.length }),
  network: async (config, { file, levels, candidates }) => ({
    network: await optimalNetwork(config, file, levels, {
      classes: candidates.some(({ classidx }) => classidx !== NO_CLASS),
      unconditional: candidates.some(({ classidx }) => classidx === NO_CLASS),
    }),
  }),
  describe: () => [],
};
