// What a model states about itself, without its weights.

import type { Levels } from '../families/family.ts';
import type { Files } from '../files/files.ts';
import type { Card } from '../folders/card.ts';
import type { Level } from '../model.ts';
import type { ModelSummary } from '../model-summary.ts';
import { type ReadModel, readModelConfig, requireClasses } from './families.ts';

/** Returns the temperature for a grid: the card's, else the family's. Differences of weighted mean errors are divided by it. */
export const temperatureOf = (
  card: Card | undefined,
  { temperature }: Levels,
  grid: readonly Level[],
): number => card?.temperature ?? temperature?.(grid) ?? 1;

/**
 * Summarises a model for images of the given side.
 * @throws ModelError if the model leaves the side of its images open and none is given.
 */
export function summarise({ family, config }: ReadModel, imageSize?: number): ModelSummary {
  const { card, files } = config;
  const { conditioning, labels, heads } = family.candidates(config);
  const own = family.levels(config);
  const { coefficients: _, temperature: __, ...levels } = own;
  return {
    name: files.name,
    conditioning,
    ...family.images(config, imageSize),
    labels,
    heads,
    ...levels,
    distance: card?.loss ?? 'l2',
    temperature: temperatureOf(card, own, own.levels),
    kappa: card?.kappa,
    familiar: card?.familiar,
  };
}

/** Reads and summarises a model. @throws ModelError naming the file that is not in order. */
export async function readSummary(files: Files): Promise<ModelSummary> {
  const read = await readModelConfig(files);
  requireClasses(read);
  return summarise(read);
}
