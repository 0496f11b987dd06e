// From a model folder to a classifier on a device.

import { ModelError, UnsupportedError } from '../../errors.ts';
import type { GpuDevice } from '../../host-types.ts';
import {
  type CompileProgress,
  type Device,
  type DeviceOptions,
  openDevice,
} from '../../kernels/device/device.ts';
import type { WeightDtype } from '../../kernels/device/routine.ts';
import type { Distance } from '../../kernels/diffusion/error-reduction.ts';
import { type Attached, type DenoiserOptions, denoiser } from '../evaluation/denoiser.ts';
import type { Network, Noise, NoiseLevel } from '../evaluation/evaluation.ts';
import type { Files } from '../files/files.ts';
import { openTensorFile, type TensorFile } from '../files/safetensors.ts';
import { withoutClass } from '../families/edm/edm-family.ts';
import { type ModelFolder, readModelFolder, requireClasses } from './families.ts';
import { coefficients } from '../folders/schedule.ts';
import { type Candidate, type Level, type Model, NO_CLASS } from '../model.ts';
import type { ModelSummary } from '../model-summary.ts';
import { modelFiles } from '../node/model-path.ts';
import { openSafetensors } from '../node/open-safetensors.ts';
import { candidatesOf } from './candidates.ts';
import { edmLevel, edmNetwork } from '../families/edm/edm-network.ts';
import { imageEncoder } from '../families/latent.ts';
import { optimalLevel, optimalNetwork } from '../families/optimal/optimal-network.ts';
import { outputScale, pixelNetwork } from '../families/pixel/pixel-network.ts';
import { summarise, temperatureOf } from './summarise.ts';
import { textNetwork } from '../families/text/text-network.ts';
import { transformerNetwork } from '../families/dit/dit-family.ts';

export interface OpenModelOptions {
  /** The host's device, which is never destroyed here; or how to open one. */
  readonly device?: GpuDevice | DeviceOptions;
  /**
   * Receives the progress of compiling shaders: some 20 s for a small network on a software adapter that has not
   * compiled it before. `total` grows as further parts of the model are made ready.
   */
  readonly onCompile?: (progress: CompileProgress) => void;
  /** The grid in visiting order, made from what the folder says; without it the model's own. */
  readonly levels?: (model: ModelSummary) => readonly Level[];
  /** Side of the square image, for latent models; without it the model's own. */
  readonly imageSize?: number;
  /**
   * Candidates, `classidx` being the model's class, or NO_CLASS where the network knows a null class; without it every
   * class by its own name. Text models need them, with prompts.
   */
  readonly candidates?: (model: ModelSummary) => readonly Candidate[];
  /**
   * Opens the model for its prediction without a class, or without a prompt: its one candidate, instead of others, is
   * `{ label: '', classidx: NO_CLASS }`.
   */
  readonly unconditional?: boolean;
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
  /** Bytes for what a gradient's run keeps on the device; 1 GiB where not given (`DifferentiableOptions`). */
  readonly gradientBytes?: number;
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

/** The model's kappa where it holds: for the distance, levels and weights it was measured with. */
function kappaOf(
  model: ModelSummary,
  { distance }: OpenModelOptions,
  levels: readonly Level[],
): number | undefined {
  const own = new Map(model.levels.map(({ t, sigma, weight }) => [t ?? sigma, weight]));
  const same = levels.every(({ t, sigma, weight }) => own.get(t ?? sigma) === weight);
  return same && (distance ?? model.distance) === model.distance ? model.kappa : undefined;
}

/** What a level does to an image and to the network's output. @throws UnsupportedError where the model has no such. */
function noiseLevel(folder: ModelFolder, level: Level): NoiseLevel {
  if (folder.kind === 'edm') return { ...level, coefficients: edmLevel(folder, level) };
  if (folder.kind === 'optimal') return { ...level, coefficients: optimalLevel(folder, level) };
  const { t } = level;
  const T = folder.schedule.numTrainTimesteps;
  if (t === undefined || !Number.isInteger(t) || t < 0 || t >= T)
    throw new UnsupportedError(
      `${folder.files.name}: the model has timesteps 0 to ${T - 1}, got ${t ?? `sigma ${level.sigma}`}`,
    );
  const found = coefficients(folder.schedule, t);
  const scale = folder.kind === 'pixel' ? outputScale(folder, t) : 1;
  return { ...level, coefficients: { ...found, alpha: found.alpha * scale } };
}

/** Evaluations of a batch when nobody says, by the kind of model: enough to fill a device, few enough to fit it. */
const DEFAULT_BATCH = { pixel: 128, edm: 64, optimal: 32, text: 16, transformer: 16 } as const;

/** A file of weights above which halves are kept as halves: below, f32 is faster and costs nothing. */
const LARGE_BYTES = 2 ** 28;

/** f16 where the denoising network's file is large and holds nothing else, so that nothing is lost by it. */
function dtypeOf(file: TensorFile): WeightDtype {
  const tensors = [...file.tensors.values()];
  const bytes = tensors.reduce((sum, { shape }) => sum + 2 * shape.reduce((n, side) => n * side, 1), 0);
  return bytes > LARGE_BYTES && tensors.every(({ dtype }) => dtype === 'F16') ? 'f16' : 'f32';
}

/**
 * A model folder made ready for any device: the network, and how to evaluate it. `close` its file when all is planned:
 * gradients are when they are first asked for.
 */
export interface LoadedModel {
  readonly network: Network;
  readonly evaluation: DenoiserOptions;
  /** Puts what stands beside the network on a device: prompts, an image encoder. */
  readonly attach: (device: Device) => Promise<Attached>;
  /** A second call does nothing but wait for the first. */
  readonly close: () => Promise<void>;
}

type Loaded = Pick<LoadedModel, 'network' | 'attach'>;

async function networkOf(
  folder: ModelFolder,
  file: TensorFile,
  { inputShape }: ModelSummary,
  levels: readonly NoiseLevel[],
  candidates: readonly Candidate[],
  weightDtype: WeightDtype,
): Promise<Loaded> {
  switch (folder.kind) {
    case 'pixel':
      return { network: await pixelNetwork(folder, file, levels), attach: async () => ({}) };
    case 'edm':
      return { network: await edmNetwork(folder.network, file, levels), attach: async () => ({}) };
    case 'optimal': {
      const unconditional = candidates.some(({ classidx }) => classidx === NO_CLASS);
      const classes = candidates.some(({ classidx }) => classidx !== NO_CLASS);
      return {
        network: await optimalNetwork(folder, file, levels, { classes, unconditional }),
        attach: async () => ({}),
      };
    }
    case 'text': {
      const prompts = candidates.map(({ prompt }) => prompt!);
      return await textNetwork(folder, file, levels, prompts, { inputShape, weightDtype });
    }
    case 'transformer':
      return {
        network: transformerNetwork(folder, file, levels),
        async attach(device) {
          const encoder = await imageEncoder(device, folder.vae, inputShape, weightDtype);
          return { encoder, bytes: encoder.bytes, destroy: () => encoder.destroy() };
        },
      };
    default:
      return folder satisfies never;
  }
}

/**
 * Reads a model, given by the path of its folder or by the name of a shipped one, and settles every option, without a
 * device.
 * @throws ModelError naming the file (and tensor) that is not in order, or listing the shipped models if there is no
 * such model.
 */
export async function loadModel(path: string | Files, options: OpenModelOptions = {}): Promise<LoadedModel> {
  const found = await readModelFolder(await modelFiles(path));
  const folder = options.unconditional && found.kind === 'edm' ? withoutClass(found) : found;
  if (!options.unconditional) requireClasses(folder);
  const model = summarise(folder, options.imageSize);
  const levels = (options.levels?.(model) ?? model.levels).map((level) => noiseLevel(folder, level));
  const { candidates, labels } = candidatesOf(folder, model, options);
  const { sideMultiple = 1, inputShape } = model;
  if (inputShape[1] % sideMultiple !== 0)
    throw new UnsupportedError(
      `${model.name}: takes images whose side is a multiple of ${sideMultiple}, got ${inputShape[1]}`,
    );
  const file = await openTensorFile(folder.files, folder.weights);
  try {
    const weightDtype = options.weightDtype ?? dtypeOf(file);
    const { network, attach } = await networkOf(folder, file, model, levels, candidates, weightDtype);
    // Where a view's candidates cost nothing each, batches and images in flight are counted by views.
    const perView = network.take ? candidates.length : 1;
    const batchSize = options.batchSize ?? DEFAULT_BATCH[folder.kind] * perView;
    const evaluation: DenoiserOptions = {
      name: model.name,
      crop: model.crop,
      candidates,
      labels,
      levels,
      temperature: temperatureOf(folder, levels),
      kappa: kappaOf(model, options, levels),
      familiar: (options.distance ?? model.distance) === model.distance ? model.familiar : undefined,
      noise: await readNoise(options, network.image, levels.length),
      distance: options.distance ?? model.distance,
      residual: model.residual,
      weightDtype,
      batchSize,
      gradientBytes: options.gradientBytes,
      slots: options.slots ?? Math.ceil(batchSize / perView),
    };
    let closing: Promise<void> | undefined;
    const close = () => {
      closing ??= file.close();
      return closing;
    };
    return { network, evaluation, attach, close };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/**
 * Opens a model, given by the path of its folder or by the name of a shipped one (see `shippedModels`), as a classifier.
 * @throws ModelError naming the file (and tensor) that is not in order, or listing the shipped models if there is no
 * such model; NoDeviceError without an adapter; OutOfMemoryError where not even a batch of one fits.
 * @example
 * import { openModel } from 'diffclass-stream';
 *
 * const model = await openModel('fashion-mnist');
 */
export async function openModel(path: string | Files, options: OpenModelOptions = {}): Promise<Model> {
  const { network, evaluation, attach, close } = await loadModel(path, options);
  let device: Device | undefined;
  let attached: Attached | undefined;
  try {
    const given = options.device;
    device = await openDevice({
      ...(given && 'queue' in given ? { device: given } : given),
      ...(options.onCompile && { onCompile: options.onCompile }),
    });
    const beside = await attach(device);
    attached = beside;
    const model = await denoiser(device, network, evaluation, {
      ...beside,
      destroy() {
        // Nobody waits for a model to close, and a file that was only read loses nothing by failing to.
        close().catch(() => undefined);
        beside.destroy?.();
      },
    });
    // Gradients read weights when they are first asked for.
    if (!model.differentiable) await close();
    return model;
  } catch (error) {
    attached?.destroy?.();
    device?.close();
    await close();
    throw error;
  }
}
