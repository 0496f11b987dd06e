// The names of a model's classes.

import { ModelError } from '../../errors.ts';
import { quote } from '../files/json.ts';
import type { UNet2DConfig } from '../networks/unet2d-config.ts';
import type { Card } from './card.ts';

/**
 * The names of a UNet's classes: `id2label` with every number 0 .. N-1, or the numbers themselves when there is none.
 * A network with N class embeddings has N classes; id2label may name all but the last (the null class of a network
 * trained for guidance), and a card's `classes` settles any other number.
 */
export function classLabels(
  id2label: Readonly<Record<string, string>> | undefined,
  unet: UNet2DConfig,
  card: Card | undefined,
  file: string,
): readonly string[] {
  const refuse = (what: string): ModelError => new ModelError(`${file}: ${what}`);
  const given = id2label && Object.keys(id2label).length;
  const rows = unet.numClassEmbeds;
  if (unet.classEmbedding === 'none' || unet.classEmbedding === 'identity') {
    if (given) throw refuse(`id2label names ${given} classes, but the unet takes no class numbers`);
    return [];
  }
  if (card?.classes !== undefined && rows !== undefined && card.classes > rows)
    throw refuse(`the card has ${card.classes} classes, num_class_embeds is ${rows}`);
  const nullClass = given !== undefined && given + 1 === rows && !Object.hasOwn(id2label!, String(given));
  const wanted = card?.classes ?? (nullClass ? given : (rows ?? given ?? 0));
  return namedLabels(id2label, wanted, file);
}

/**
 * The names of a multi-head network's classes: id2label's, or as many as the card says, else one a head.
 * @throws ModelError where they are not as many as the heads, or one fewer (and a head for no class behind them).
 */
export function headLabels(
  id2label: Readonly<Record<string, string>> | undefined,
  heads: number,
  card: Card | undefined,
  file: string,
): readonly string[] {
  const classes = card?.classes ?? (id2label ? Object.keys(id2label).length : heads);
  if (classes !== heads && classes !== heads - 1)
    throw new ModelError(
      `${file}: ${classes} classes for ${heads} heads, wanted ${heads}, or ${heads - 1} and a null head`,
    );
  return namedLabels(id2label, classes, file);
}

/** The names 0 .. wanted - 1 of `id2label`, or the numbers themselves when there is none. */
export function namedLabels(
  id2label: Readonly<Record<string, string>> | undefined,
  wanted: number,
  file: string,
): readonly string[] {
  const refuse = (what: string): ModelError => new ModelError(`${file}: ${what}`);
  if (!id2label) return Array.from({ length: wanted }, (_, i) => String(i));
  const given = Object.keys(id2label).length;
  const stray = Object.keys(id2label).find((key) => !/^(?:0|[1-9]\d*)$/.test(key) || Number(key) >= wanted);
  if (stray !== undefined)
    throw refuse(`id2label has the key ${quote(stray)}, wanted the numbers 0 to ${wanted - 1}`);
  return Array.from({ length: wanted }, (_, i) => {
    const label = id2label[String(i)];
    if (label === undefined)
      throw refuse(`id2label names ${given} classes and not ${i}, wanted all of 0 to ${wanted - 1}`);
    return label;
  });
}
