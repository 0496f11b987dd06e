// Writes adversarial images: for each broken image a PNG, and the floats before they became 8 bits.

import { join } from 'node:path';
import { writeSafetensors } from '../../../../graph/node/write-safetensors.ts';
import { fromModelInput } from '../../../images/pixels.ts';
import { classOf, folded } from '../../../node/labelled.ts';
import { refusing } from '../../shared/refusing.ts';
import { writePng } from '../../shared/whole-files.ts';

/** A class of a model. */
interface Class {
  readonly label: string;
  readonly classidx: number;
}

/**
 * Makes a path within a data set safe: no system refuses it, and it stays below the folder that it is joined to.
 * `decodeURIComponent` of each part restores the path.
 */
export const safePath = (path: string): string =>
  path
    .split('/')
    .map((part) =>
      part === '..' || part === '.'
        ? part.replaceAll('.', '%2E')
        : // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is replaced
          part.replaceAll(/[%\\:*?"<>|\x00-\x1f\x7f]/g, encodeURIComponent),
    )
    .join('/');

/** Returns a folder name that a labelled set reads as this class: its label without punctuation, or its number. */
export function classFolder({ label, classidx }: Class, classes: readonly Class[]): string {
  const plain = folded(label);
  return plain !== '' && classOf(plain, classes) === classidx ? plain : String(classidx);
}

/** An adversarial image. */
export interface Adversarial {
  readonly attack: string;
  /** The image's path within the data set. */
  readonly key: string;
  readonly label: Class;
  /** [c, h, w] in [0, 1], as 8 bits and before. */
  readonly quantised: Float64Array;
  readonly found: Float64Array;
}

const toModel = (x: Float64Array) => Float32Array.from(x, (v) => 2 * v - 1);

/**
 * Writes an image to `folder` as ATTACK/CLASS/KEY.png, so that ATTACK is a labelled data set, and its floats next to it as
 * KEY.safetensors: tensor `image` [c, h, w] in [-1, 1]. Both replace existing files. Returns the PNG's path in `folder`.
 *
 * @throws UsageError if they cannot be written.
 */
export async function saveAdversarial(
  folder: string,
  { attack, key, label, quantised, found }: Adversarial,
  classes: readonly Class[],
  shape: readonly [channels: number, height: number, width: number],
): Promise<string> {
  const name = [attack, classFolder(label, classes), safePath(key)].join('/');
  await writePng(join(folder, `${name}.png`), fromModelInput(toModel(quantised), shape));
  const tensors = join(folder, `${name}.safetensors`);
  await writeSafetensors(tensors, [['image', { dtype: 'F32', shape, data: toModel(found) }]]).catch(
    refusing(`--save: ${tensors} cannot be written`),
  );
  return `${name}.png`;
}
