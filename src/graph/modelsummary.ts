// What a model folder says of its images, levels and classes, without its weights.

import type { Distance, Residual } from '../kernels/error-reduction.ts';
import { ModelError } from '../kernels/errors.ts';
import { type ModelFolder, readModelFolder, requireClasses } from './files/folder.ts';
import { modelFolder } from './files/model-path.ts';
import type { Crop, Familiar, Level } from './model.ts';
import { vaeDownscale } from './networks/vaeencoder-config.ts';
import { OPTIMAL_SIGMAS } from './optimalmodel.ts';
import { rdcLevels, sumTemperature } from './sigmas.ts';
import { shareOf, visitingOrder } from './visiting.ts';

/** What a model folder says, without its weights. */
export interface ModelSummary {
  readonly name: string;
  /** Whether candidates are classes of the model, or prompts (each candidate then has a `prompt`). */
  readonly conditioning: 'class' | 'text';
  readonly inputShape: readonly [channels: number, height: number, width: number];
  /** See `Model.crop`. */
  readonly crop?: Crop | undefined;
  /** Where the side of the image can be chosen: what it must be a multiple of. */
  readonly sideMultiple?: number | undefined;
  /** The names of its classes, in the order of their numbers; none for text models. */
  readonly labels: readonly string[];
  /** Predictions of one run of a multi-head network: all classes, and perhaps one without a class. */
  readonly heads?: number | undefined;
  /** Timesteps of the schedule; 0 of models whose levels are sigmas. */
  readonly numTrainTimesteps: number;
  /** Noise in units of the image, b / a, of every timestep; models whose levels are sigmas have none. */
  readonly timestepSigmas?: readonly number[] | undefined;
  /** Standard deviation of the data that a model of sigmas was made for; 0.5 where nothing is said. */
  readonly sigmaData?: number | undefined;
  /**
   * The model's own grid in visiting order: its card's, or even timesteps of equal weight, or RDC's sigmas with its
   * weights.
   */
  readonly levels: readonly Level[];
  readonly distance: Distance;
  /** What errors are distances of: noises where nothing is said. */
  readonly residual?: Residual | undefined;
  readonly temperature: number;
  /** See `Model.kappa`. */
  readonly kappa?: number | undefined;
  /** See `Model.familiar`. */
  readonly familiar?: Familiar | undefined;
}

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
        throw new ModelError(`${folder.path}: sample_size is missing in unet/config.json; say --image-size`);
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
  return visitingOrder(grid.map(shareOf)).map((i) => grid[i]!);
}

/**
 * What differences of weighted mean errors are divided by: the card's temperature, else 1; for an EDM model what makes
 * them differences of weighted sums, as RDC has them.
 */
export const temperatureOf = ({ card, kind }: ModelFolder, levels: readonly Level[]): number =>
  card?.temperature ?? (kind === 'edm' ? sumTemperature(levels) : 1);

/** What a folder says, for images of the side wanted. @throws ModelError where the side has to be said and is not. */
export function summarise(folder: ModelFolder, imageSize?: number): ModelSummary {
  const { card, name, kind } = folder;
  const own = levelsOf(folder);
  return {
    name,
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
 * Reads what a model says of itself, given by the path of its folder or by the name of a shipped one; no weights.
 * @throws ModelError naming the file that is not in order, or listing the shipped models if there is no such model.
 */
export async function readModel(path: string): Promise<ModelSummary> {
  const folder = await readModelFolder(await modelFolder(path));
  requireClasses(folder);
  return summarise(folder);
}
