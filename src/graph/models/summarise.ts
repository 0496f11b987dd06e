// From a parsed model folder to its summary.

import { ModelError } from '../../errors.ts';
import type { Files } from '../files/files.ts';
import { type ModelFolder, readModelFolder, requireClasses } from './families.ts';

import type { Level } from '../model.ts';
import type { ModelSummary } from '../model-summary.ts';
import { vaeDownscale } from '../networks/vae-encoder-config.ts';
import { modelFiles } from '../node/model-path.ts';
import { rdcLevels, sumTemperature } from '../sigmas.ts';
import { gridShare, visitingOrder } from '../visiting.ts';
import { OPTIMAL_SIGMAS } from '../families/optimal/optimal-network.ts';

/** Levels of a model whose card names none, by its kind. */
const DEFAULT_LEVELS = { pixel: 25, text: 100, transformer: 250 } as const;

/** The images a folder's model takes, and what it says of their sides. */
function imageOf(
  folder: ModelFolder,
  imageSize: number | undefined,
): Pick<ModelSummary, 'inputShape' | 'crop' | 'sideMultiple'> {
  switch (folder.kind) {
    case 'pixel':
      return { inputShape: [folder.unet.inChannels, ...folder.unet.sampleSize!] };
    case 'text': {
      const { unet, vae } = folder;
      const factor = vaeDownscale(vae.config);
      if (!unet.sampleSize && imageSize === undefined)
        throw new ModelError(
          `${folder.files.describe('')}: sample_size is missing in unet/config.json; give --image-size`,
        );
      const side = imageSize ?? unet.sampleSize![0] * factor;
      const sideMultiple = factor * 2 ** (unet.blockOutChannels.length - 1);
      return { inputShape: [3, side, side], sideMultiple };
    }
    case 'edm': {
      const { imgChannels, imgResolution } = folder.network;
      return { inputShape: [imgChannels, imgResolution, imgResolution] };
    }
    case 'optimal':
      return { inputShape: folder.image };
    case 'transformer': {
      const side = folder.transformer.sampleSize * vaeDownscale(folder.vae.config);
      return { inputShape: [3, side, side], crop: 'adm' };
    }
    default:
      return folder satisfies never;
  }
}

/** What a folder says of noise levels. */
function levelsOf(
  folder: ModelFolder,
): Pick<ModelSummary, 'numTrainTimesteps' | 'timestepSigmas' | 'sigmaData' | 'levels' | 'residual'> {
  const { card } = folder;
  const weightAt = (i: number) => card?.weights?.[i] ?? 1;
  if (folder.kind === 'edm') {
    const { sigmaData } = folder.network;
    const own = card?.sigmas?.map((sigma, i) => ({ sigma, weight: weightAt(i) }));
    return { numTrainTimesteps: 0, sigmaData, levels: own ?? ownSigmas(sigmaData), residual: 'x0' };
  }
  if (folder.kind === 'optimal') {
    const sigmas = card?.sigmas ?? visitingOrder(OPTIMAL_SIGMAS.length).map((i) => OPTIMAL_SIGMAS[i]!);
    const levels = sigmas.map((sigma, i) => ({ sigma, weight: weightAt(i) }));
    return { numTrainTimesteps: 0, levels, residual: 'eps' };
  }
  const { numTrainTimesteps: T, alphasCumprod } = folder.schedule;
  const count = Math.min(DEFAULT_LEVELS[folder.kind], T);
  const even = Array.from({ length: count }, (_, k) => Math.floor(((k + 0.5) * T) / count));
  return {
    numTrainTimesteps: T,
    timestepSigmas: Array.from(alphasCumprod, (alphaBar) => Math.sqrt((1 - alphaBar) / alphaBar)),
    levels: (card?.timesteps ?? even).map((t, i) => ({ t, weight: weightAt(i) })),
    residual: 'eps',
  };
}

/** RDC's grid in visiting order. */
function ownSigmas(sigmaData: number): Level[] {
  const grid = rdcLevels({ sigmaData });
  return visitingOrder(grid.map(gridShare)).map((i) => grid[i]!);
}

/**
 * What differences of weighted mean errors are divided by: the card's temperature, else 1; for an EDM model what makes
 * them differences of weighted sums, as RDC has them.
 */
export const temperatureOf = ({ card, kind }: ModelFolder, levels: readonly Level[]): number =>
  card?.temperature ?? (kind === 'edm' ? sumTemperature(levels) : 1);

/** What a folder says, for images of the side wanted. @throws ModelError where the side has to be said and is not. */
export function summarise(folder: ModelFolder, imageSize?: number): ModelSummary {
  const { card, files, kind } = folder;
  const own = levelsOf(folder);
  return {
    name: files.name,
    conditioning: kind === 'text' ? 'text' : 'class',
    ...imageOf(folder, imageSize),
    labels: kind === 'text' ? [] : folder.labels,
    heads: kind === 'pixel' ? folder.heads : kind === 'edm' ? folder.network.heads : undefined,
    ...own,
    distance: card?.loss ?? 'l2',
    temperature: temperatureOf(folder, own.levels),
    kappa: card?.kappa,
    familiar: card?.familiar,
  };
}

/**
 * Reads what a model states about itself, without its weights. `model` is the path of its folder, the name of a shipped
 * model, or the model's files.
 * @throws ModelError naming the file that is not in order, or listing the shipped models if there is no such model.
 */
export async function readModel(model: string | Files): Promise<ModelSummary> {
  const folder = await readModelFolder(await modelFiles(model));
  requireClasses(folder);
  return summarise(folder);
}
