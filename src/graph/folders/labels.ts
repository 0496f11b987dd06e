// Names of a model's classes.

import { z } from 'zod';
import { ModelError } from '../../errors.ts';
import { quote } from '../files/json.ts';
import type { UNet2DConfig } from '../networks/unet2d-config.ts';
import type { Card } from './card.ts';

/** Checks an `id2label`: an object of the names by their numbers, or a list of names, whose numbers are their places. */
export const id2labelSchema = z.preprocess(
  (value) => (Array.isArray(value) ? Object.fromEntries(value.entries()) : value),
  z.record(z.string(), z.string()).nullish(),
);

/**
 * Returns the names of a UNet's classes: those of `id2label` for all numbers 0 .. N-1, or the numbers themselves if there
 * is no id2label. A network with N class embeddings has N classes. id2label may leave out the last (the null class of a
 * network trained for guidance), and a card's `classes` sets any other number.
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
    throw refuse(`expected a card of at most ${rows} classes (num_class_embeds), got ${card.classes}`);
  const nullClass = given !== undefined && given + 1 === rows && !Object.hasOwn(id2label!, String(given));
  const count = card?.classes ?? (nullClass ? given : (rows ?? given ?? 0));
  return namedLabels(id2label, count, file);
}

/**
 * Returns the names of a multi-head network's classes: as many as the card has, else those of id2label, else one per head.
 * @throws ModelError unless there are as many as heads, or one fewer, the last head being that of no class.
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
      `${file}: expected ${heads} classes for ${heads} heads, or ${heads - 1} and a null head, got ${classes}`,
    );
  return namedLabels(id2label, classes, file);
}

/** Returns the names 0 .. count - 1 of `id2label`, or the numbers themselves if there is none. */
export function namedLabels(
  id2label: Readonly<Record<string, string>> | undefined,
  count: number,
  file: string,
): readonly string[] {
  const refuse = (what: string): ModelError => new ModelError(`${file}: ${what}`);
  if (!id2label) return Array.from({ length: count }, (_, i) => String(i));
  const given = Object.keys(id2label).length;
  const stray = Object.keys(id2label).find((key) => !/^(?:0|[1-9]\d*)$/.test(key) || Number(key) >= count);
  if (stray !== undefined)
    throw refuse(`expected the keys 0 to ${count - 1} in id2label, got ${quote(stray)}`);
  const inOrder = Array.from({ length: given }, (_, i) => String(i)).every((key) => key in id2label);
  if (given < count && inOrder)
    throw refuse(
      `id2label names ${given} classes, but the network has ${count}; name all of them, or write "classes": ${given} in card.json if the others are no classes`,
    );
  return Array.from({ length: count }, (_, i) => {
    const label = id2label[String(i)];
    if (label === undefined)
      throw refuse(`expected all of 0 to ${count - 1} in id2label, got ${given} classes without ${i}`);
    return label;
  });
}
