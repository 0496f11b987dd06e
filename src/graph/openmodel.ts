// From a model folder to a classifier on a device.

import { type Device, type DeviceOptions, openDevice } from '../kernels/device.ts';
import type { Distance } from '../kernels/error-reduction.ts';
import { ModelError, UnsupportedError } from '../kernels/errors.ts';
import type { WeightDtype } from '../kernels/routine.ts';
import { type DenoiserOptions, denoiser, type Network, type Noise } from './denoiser.ts';
import { type PixelModelFolder, readModelFolder, requireClasses } from './files/folder.ts';
import { openSafetensors } from './files/safetensors.ts';
import type { Candidate, Crop, Level, Model } from './model.ts';
import { noiseLevel, pixelNetwork } from './pixelmodel.ts';

export interface OpenModelOptions {
  /** The host's device, which is never destroyed here; or how to open one. */
  readonly device?: GPUDevice | DeviceOptions;
  /** The grid in visiting order, made from what the folder says; without it the model's own. */
  readonly levels?: (model: ModelSummary) => readonly Level[];
  /** Side of the square image, for latent models; without it the model's own. */
  readonly imageSize?: number;
  /** Candidates, `classidx` being the model's class; without it every class by its own name. Text models need them, with prompts. */
  readonly candidates?: (model: ModelSummary) => readonly Candidate[];
  /** Distance of noise and prediction; without it the model's own, else l2. */
  readonly distance?: Distance;
  /** Seed of the counter-based noise (default 0), or a safetensors file with `noise` [count, c, h, w]. */
  readonly seed?: number | bigint;
  readonly noiseFile?: string;
  /** Most evaluations of a batch; halved where memory does not suffice. Default: by the network's cost. */
  readonly batchSize?: number;
  /** Images in flight; default: as many as a batch holds evaluations. */
  readonly slots?: number;
  readonly weightDtype?: WeightDtype;
}

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
  readonly numTrainTimesteps: number;
  /** The model's own grid in visiting order: its card's, or 25 even timesteps of equal weight. */
  readonly levels: readonly Level[];
  readonly distance: Distance;
  readonly temperature: number;
  /** See `Model.kappa`. */
  readonly kappa?: number | undefined;
}

/** Levels of a model whose card names none. */
const DEFAULT_LEVELS = 25;

function summarise(folder: PixelModelFolder): ModelSummary {
  const { card, unet, schedule, labels, name } = folder;
  const [height, width] = unet.sampleSize!;
  const T = schedule.numTrainTimesteps;
  const even = Array.from({ length: Math.min(DEFAULT_LEVELS, T) }, (_, k, n = Math.min(DEFAULT_LEVELS, T)) =>
    Math.floor(((k + 0.5) * T) / n),
  );
  return {
    name,
    conditioning: 'class',
    inputShape: [unet.inChannels, height, width],
    labels,
    numTrainTimesteps: T,
    levels: (card?.timesteps ?? even).map((t, i) => ({ t, weight: card?.weights?.[i] ?? 1 })),
    distance: card?.loss ?? 'l2',
    temperature: card?.temperature ?? 1,
    kappa: card?.kappa,
  };
}

/** Reads a model folder's configuration. Throws `ModelError` naming the file, for whatever is not in order. */
export async function readModel(path: string): Promise<ModelSummary> {
  const folder = await readModelFolder(path);
  requireClasses(folder);
  return summarise(folder);
}

async function readNoise(
  options: OpenModelOptions,
  image: readonly number[],
  levels: number,
): Promise<Noise> {
  const { noiseFile } = options;
  if (noiseFile === undefined) return { seed: BigInt(options.seed ?? 0) };
  const file = await openSafetensors(noiseFile);
  try {
    const shape = file.tensors.get('noise')?.shape;
    if (shape?.length !== 4 || !image.every((side, i) => shape[i + 1] === side))
      throw new ModelError(
        `${noiseFile}: wanted the tensor "noise" [n, ${image.join(', ')}], ${shape ? `got [${shape.join(', ')}]` : 'it has none'}`,
      );
    if (shape[0]! < levels)
      throw new ModelError(`${noiseFile}: ${shape[0]} noises, the grid's ${levels} levels need one each`);
    return { values: await file.readF32('noise'), count: shape[0]! };
  } finally {
    await file.close();
  }
}

/** Evaluations of a batch when nobody says: enough to fill the device and to make one dispatch's cost small. */
const DEFAULT_BATCH = 128;

/** The model's kappa where it holds: for the distance, levels and weights it was measured with. */
function kappaOf(
  model: ModelSummary,
  { distance }: OpenModelOptions,
  levels: readonly Level[],
): number | undefined {
  const own = new Map(model.levels.map(({ t, weight }) => [t, weight]));
  const same = levels.every(({ t, weight }) => own.get(t) === weight);
  return same && (distance ?? model.distance) === model.distance ? model.kappa : undefined;
}

/** A model folder made ready for any device: the network, and how to evaluate it. `close` its file when planned. */
export interface LoadedModel {
  readonly network: Network;
  readonly evaluation: DenoiserOptions;
  readonly close: () => Promise<void>;
}

/**
 * Reads a model folder and settles every option, without a device.
 * @throws ModelError naming the file (and tensor) that is not in order.
 */
export async function loadModel(path: string, options: OpenModelOptions = {}): Promise<LoadedModel> {
  const folder = await readModelFolder(path);
  requireClasses(folder);
  const model = summarise(folder);
  const levels = (options.levels?.(model) ?? model.levels).map((level) => noiseLevel(folder, level));
  const candidates =
    options.candidates?.(model) ?? model.labels.map((label, classidx) => ({ label, classidx }));
  const strange = candidates.find(({ classidx }) => !(classidx in model.labels));
  if (strange)
    throw new UnsupportedError(
      `${model.name}: ${strange.label} is class ${strange.classidx} of 0 to ${model.labels.length - 1}`,
    );
  const noise = await readNoise(options, model.inputShape, levels.length);
  const file = await openSafetensors(folder.weights);
  const batchSize = options.batchSize ?? DEFAULT_BATCH;
  const evaluation: DenoiserOptions = {
    name: model.name,
    candidates,
    labels: candidates.map(({ classidx }) => classidx),
    levels,
    temperature: model.temperature,
    kappa: kappaOf(model, options, levels),
    noise,
    distance: options.distance ?? model.distance,
    weightDtype: options.weightDtype ?? 'f32',
    batchSize,
    slots: options.slots ?? batchSize,
  };
  try {
    return { network: await pixelNetwork(folder, file, levels), evaluation, close: () => file.close() };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/**
 * Opens a model folder as a classifier.
 * @throws ModelError naming the file (and tensor) that is not in order; NoDeviceError without an adapter;
 * OutOfMemoryError where not even a batch of one fits.
 */
export async function openModel(path: string, options: OpenModelOptions = {}): Promise<Model> {
  const { network, evaluation, close } = await loadModel(path, options);
  let device: Device | undefined;
  try {
    const given = options.device;
    device = await openDevice(given && 'queue' in given ? { device: given } : given);
    return await denoiser(device, network, evaluation);
  } catch (error) {
    device?.close();
    throw error;
  } finally {
    await close();
  }
}
