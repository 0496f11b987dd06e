// The folder of an optimal denoiser: a `config.json` that names a file of labelled images, which are the model.

import { z } from 'zod';
import { ModelError } from '../../../errors.ts';
import type { Files } from '../../files/files.ts';
import { checked, readJson } from '../../files/json.ts';
import { openTensorFile, type TensorInfo } from '../../files/safetensors.ts';
import { type Card, readCard } from '../../folders/card.ts';
import { namedLabels } from '../../folders/labels.ts';
import type { WeightFile } from '../../folders/weights.ts';

/** The class name in `config.json`. */
export const OPTIMAL_CLASS = 'OptimalDenoiser';

/**
 * The closed-form denoiser of labelled images: its levels are sigmas, and it predicts the clean image. The file `weights`
 * holds the tensors `images` [n, c, h, w], bytes from 0 to 255 or floats in [-1, 1], and `labels` [n], bytes or integers.
 */
export interface OptimalFolder extends WeightFile {
  readonly kind: 'optimal';
  readonly image: readonly [channels: number, height: number, width: number];
  readonly labels: readonly string[];
  readonly card: Card | undefined;
}

const config = z.object({
  _class_name: z.literal(OPTIMAL_CLASS),
  data: z.string().min(1).default('images.safetensors'),
  id2label: z.record(z.string(), z.string()),
});

/**
 * Reads the folder of an optimal denoiser.
 * @throws ModelError naming the file (and tensor) that is missing, broken or not supported.
 */
export async function readOptimalFolder(files: Files): Promise<OptimalFolder> {
  const file = files.describe('config.json');
  const { data: weights, id2label } = checked(config, await readJson(files, 'config.json'), file);
  return {
    kind: 'optimal',
    files,
    weights,
    image: await imageShape(files, weights),
    labels: namedLabels(id2label, Object.keys(id2label).length, file),
    card: await readCard(files, undefined),
  };
}

/** Returns the shape [c, h, w] of the images in a file. @throws ModelError if it does not hold labelled images. */
async function imageShape(files: Files, name: string): Promise<OptimalFolder['image']> {
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
