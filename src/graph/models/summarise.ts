// What a model states about itself, without its weights.

import type { Files } from '../files/files.ts';
import type { Level } from '../model.ts';
import type { ModelSummary } from '../model-summary.ts';
import { type ReadModel, readModelConfig, requireClasses } from './families.ts';

/** Returns what differences of weighted mean errors are divided by: the card's temperature, else the family's. */
export const temperatureOf = ({ family, config }: ReadModel, levels: readonly Level[]): number =>
  config.card?.temperature ?? family.levels(config).temperature?.(levels) ?? 1;

/**
 * Summarises a model for images of the given side.
 * @throws ModelError if the model leaves the side of its images open and none is given.
 */
export function summarise(model: ReadModel, imageSize?: number): ModelSummary {
  const { family, config } = model;
  const { card, files } = config;
  const { conditioning, labels, heads } = family.candidates(config);
  const { coefficients: _, temperature: __, ...levels } = family.levels(config);
  return {
    name: files.name,
    conditioning,
    ...family.images(config, imageSize),
    labels,
    heads,
    ...levels,
    distance: card?.loss ?? 'l2',
    temperature: temperatureOf(model, levels.levels),
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
