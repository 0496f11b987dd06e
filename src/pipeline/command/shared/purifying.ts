// What commands that purify are told, and how they open the network for it.

import { stat } from 'node:fs/promises';
import { ModelError, UsageError } from '../../../errors.ts';
import type { Model } from '../../../graph/model.ts';
import type { OpenModelOptions } from '../../../graph/models/open-model.ts';
import { openSafetensors } from '../../../graph/node/open-safetensors.ts';
import { systemCode } from '../../images/failures.ts';
import { checkPurifying, type PurifyingOptions } from '../../purifying/methods.ts';
import { purificationLevels, sigmasOfSteps } from '../../purifying/purification-steps.ts';
import type { OptionName, Values } from '../options/table.ts';

/** A purification that is asked for, and its file of noise. */
export interface PurifyingSettings extends PurifyingOptions {
  readonly noiseFile?: string | undefined;
}

/** The options of `classify` that are about purifying. */
export const CLASSIFY_PURIFYING = [
  'purify',
  'purifySteps',
  'purifyEps',
  'purifyNorm',
  'purifyStepSize',
  'purifySigmas',
  'purifyTStar',
  'purifyNoise',
] as const satisfies readonly OptionName[];

const FLAGS: Readonly<Record<keyof PurifyingOptions, string>> = {
  method: 'method',
  steps: 'steps',
  eps: 'eps',
  norm: 'norm',
  stepSize: 'step-size',
  sigmas: 'sigmas',
  tStar: 't-star',
  seed: 'seed',
  draw: 'draw',
};

/** Refuses what cannot be meant together, by the names of the options with `prefix` in front. @throws UsageError */
export const checkPurifyingFlags = (options: PurifyingOptions, prefix: '--' | '--purify-'): void =>
  checkPurifying(options, (option) => prefix + FLAGS[option]);

/** The purification that `classify` is asked for. @throws UsageError for options of none. */
export function purifyingOf(
  values: Values<(typeof CLASSIFY_PURIFYING)[number] | 'seed'>,
): PurifyingSettings | undefined {
  const { purify: method, seed } = values;
  const { purifySteps: steps, purifyEps: eps, purifyNorm: norm, purifyStepSize: stepSize } = values;
  const { purifySigmas: sigmas, purifyTStar: tStar, purifyNoise: noiseFile } = values;
  const told = { steps, eps, norm, 'step-size': stepSize, sigmas, 't-star': tStar, noise: noiseFile };
  if (method === undefined) {
    const alone = Object.entries(told).find(([, value]) => value !== undefined);
    if (alone) throw new UsageError(`--purify-${alone[0]} wants --purify METHOD`);
    return undefined;
  }
  const settings = { method, steps, eps, norm, stepSize, sigmas, tStar, noiseFile, seed };
  checkPurifyingFlags(settings, '--purify-');
  return settings;
}

/**
 * How the graph opens the network of a purification; with a file of noise sigmas are drawn here, once and for all.
 * @throws UsageError where the file of noise cannot be read.
 */
export async function purifierOptions(
  settings: PurifyingSettings,
  { batch, imageSize }: { readonly batch?: number | undefined; readonly imageSize?: number | undefined },
): Promise<OpenModelOptions> {
  const { noiseFile, method, seed = 0 } = settings;
  if (noiseFile !== undefined)
    await stat(noiseFile).catch((error: unknown) => {
      throw new UsageError(`${noiseFile}: the noise cannot be read (${systemCode(error) ?? error})`);
    });
  const onDevice = method === 'lm-adam' || method === 'lm-momentum';
  const fixed = noiseFile === undefined || method === 'diffpure';
  return {
    unconditional: true,
    distance: 'l2',
    seed,
    levels: purificationLevels(fixed ? settings : { ...settings, sigmas: sigmasOfSteps(settings) }),
    ...(noiseFile !== undefined && onDevice ? { noiseFile } : {}),
    ...(batch === undefined ? {} : { batchSize: batch }),
    ...(imageSize === undefined ? {} : { imageSize }),
  };
}

/** The noises of a file, [n, c, h, w], for a model's images. @throws ModelError where it has no such. */
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
        `${noiseFile}: wanted the tensor "noise" [n, ${inputShape.join(', ')}], ${shape ? `got [${shape.join(', ')}]` : 'it has none'}`,
      );
    return await file.readF32('noise');
  } finally {
    await file.close();
  }
}
