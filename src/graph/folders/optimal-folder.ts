// The folder of an optimal denoiser: `config.json` that names a file of labelled images, which are the model.

import { basename, join, resolve } from 'node:path';
import { z } from 'zod';
import { ModelError } from '../../errors.ts';
import { checked, readJson } from '../files/json.ts';
import { openSafetensors } from '../files/safetensors.ts';
import { type Card, readCard } from './card.ts';
import { namedLabels } from './labels.ts';

/** The class name in `config.json`. */
export const OPTIMAL_CLASS = 'OptimalDenoiser';

/** The closed-form denoiser of labelled images: levels are sigmas, what is predicted is the clean image. */
export interface OptimalFolder {
  readonly kind: 'optimal';
  readonly path: string;
  readonly name: string;
  /**
   * The file of the images: tensors `images` [n, c, h, w], bytes from 0 to 255 or floats in [-1, 1], and `labels` [n],
   * bytes or integers.
   */
  readonly weights: string;
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
 * Reads the folder of an optimal denoiser; `top` are the names of what is in it.
 * @throws ModelError naming the file (and tensor), for whatever is missing, broken or not supported.
 */
export async function readOptimalFolder(path: string, top: ReadonlySet<string>): Promise<OptimalFolder> {
  const file = join(path, 'config.json');
  const { data, id2label } = checked(config, await readJson(file), file);
  const weights = resolve(path, data);
  const images = await openSafetensors(weights);
  try {
    const refuse = (what: string) => new ModelError(`${weights}: ${what}`);
    const found = images.tensors.get('images');
    const labels = images.tensors.get('labels');
    if (found?.shape.length !== 4 || found.shape.includes(0) || !['U8', 'F32'].includes(found.dtype))
      throw refuse(
        `wanted the tensor "images" [n, c, h, w] of U8 or F32, ${found ? `got [${found.shape.join(', ')}] of ${found.dtype}` : 'it has none'}`,
      );
    const [n, c, h, w] = found.shape as [number, number, number, number];
    if (labels?.shape.length !== 1 || labels.shape[0] !== n || !['U8', 'I32', 'I64'].includes(labels.dtype))
      throw refuse(
        `wanted the tensor "labels" [${n}] of U8, I32 or I64, ${labels ? `got [${labels.shape.join(', ')}] of ${labels.dtype}` : 'it has none'}`,
      );
    return {
      kind: 'optimal',
      path,
      name: basename(resolve(path)),
      weights,
      image: [c, h, w],
      labels: namedLabels(id2label, Object.keys(id2label).length, file),
      card: top.has('card.json') ? await readCard(join(path, 'card.json'), undefined) : undefined,
    };
  } finally {
    await images.close();
  }
}
