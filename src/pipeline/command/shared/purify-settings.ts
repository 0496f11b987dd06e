// The settings of a purification, and how its network is opened.

import { stat } from 'node:fs/promises';
import { ModelError, UsageError } from '../../../errors.ts';
import type { Model } from '../../../graph/model.ts';
import type { OpenModelOptions } from '../../../graph/models/open-model.ts';
import { openSafetensors } from '../../../graph/node/open-safetensors.ts';
import { entryOf, longFlag, type OptionSet, type OptionValues } from '../../option.ts';
import {
  checkPurifying,
  type Method,
  PURIFICATIONS,
  type PurifyingOptions,
  purificationLevels,
} from '../../purifying/methods.ts';
import { type Prefix, purificationOptions } from '../options/purify-options.ts';
import { OPTIONS, type OptionName, readOptionSet, type Values } from '../options/table.ts';
import { refusing } from './refusing.ts';

/** The options of a purification, and its file of noise. */
export interface PurifyingSettings extends PurifyingOptions {
  readonly noiseFile?: string | undefined;
}

/** The options that commands with a purification in front have, next to those of `purificationOptions`. */
export const CLASSIFY_PURIFYING = ['purify', 'purifyNoise'] as const satisfies readonly OptionName[];

/** The options of a purification in front. */
export const PURIFY_FIRST_OPTIONS = purificationOptions('--purify-');

/**
 * Reads the options of a purification from a command line.
 *
 * @throws UsageError if they do not fit together.
 */
export function readPurifying(
  method: Method,
  prefix: Prefix,
  typed: OptionValues,
  { seed, noiseFile }: Pick<PurifyingSettings, 'seed' | 'noiseFile'>,
): PurifyingSettings {
  const options = purificationOptions(prefix);
  const settings = { method, ...readOptionSet(options, typed), seed, noiseFile };
  checkPurifying(settings, (option) => longFlag(options[option]!));
  return settings;
}

/**
 * Reads the purification in front that a command line asks for, if it asks for one.
 *
 * @throws UsageError if it has options of a purification and no --purify.
 */
export function purifyingOf(
  { purify, purifyNoise, seed }: Values<(typeof CLASSIFY_PURIFYING)[number] | 'seed'>,
  typed: OptionValues,
): PurifyingSettings | undefined {
  if (purify !== undefined)
    return readPurifying(purify, '--purify-', typed, { seed, noiseFile: purifyNoise });
  const options: OptionSet = { ...PURIFY_FIRST_OPTIONS, purifyNoise: OPTIONS.purifyNoise };
  const values = readOptionSet(options, typed);
  const alone = Object.keys(options).find((name) => values[name] !== undefined);
  if (alone !== undefined) throw new UsageError(`${longFlag(options[alone]!)} needs --purify METHOD`);
  return undefined;
}

/**
 * Returns how the graph opens the network of a purification. With a file of noise, the sigmas are drawn here, once.
 *
 * @throws UsageError if the file of noise cannot be read.
 */
export async function purifierOptions(
  settings: PurifyingSettings,
  { batch, imageSize }: { readonly batch?: number | undefined; readonly imageSize?: number | undefined },
): Promise<OpenModelOptions> {
  const { noiseFile, method, seed = 0 } = settings;
  if (noiseFile !== undefined)
    await stat(noiseFile).catch(refusing(`${noiseFile}: the noise cannot be read`));
  const { noiseOnDevice, drawSigmas } = entryOf(PURIFICATIONS, method);
  const drawn = noiseFile === undefined ? undefined : drawSigmas?.({ ...settings });
  return {
    unconditional: true,
    distance: 'l2',
    seed,
    levels: purificationLevels(drawn === undefined ? settings : { ...settings, sigmas: drawn }),
    ...(noiseFile !== undefined && noiseOnDevice ? { noiseFile } : {}),
    ...(batch === undefined ? {} : { batchSize: batch }),
    ...(imageSize === undefined ? {} : { imageSize }),
  };
}

/** Reads the noise of a file, [n, c, h, w], for a model's images. @throws ModelError if it holds none of that shape. */
export async function hostNoise(
  { noiseFile }: PurifyingSettings,
  { inputShape }: Model,
): Promise<Float32Array | undefined> {
  if (noiseFile === undefined) return undefined;
  const file = await openSafetensors(noiseFile);
  try {
    const shape = file.tensors.get('noise')?.shape;
    if (shape?.length !== 4 || !inputShape.every((side, i) => shape[i + 1] === side))
      throw new ModelError(
        `${noiseFile}: expected the tensor "noise" [n, ${inputShape.join(', ')}], ${shape ? `got [${shape.join(', ')}]` : 'got no tensor of that name'}`,
      );
    return await file.readF32('noise');
  } finally {
    await file.close();
  }
}
