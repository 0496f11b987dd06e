// Opens a model, given by its files, as a classifier on a device. `node/open-model.ts` finds the files of a path.

import { ModelError, UnsupportedError } from '../../errors.ts';
import type { GpuDevice } from '../../host-types.ts';
import {
  type CompileProgress,
  type Device,
  type DeviceOptions,
  openDevice,
} from '../../kernels/device/device.ts';
import type { WeightDtype } from '../../kernels/device/routine.ts';
import type { Stored } from '../../kernels/device/storage.ts';
import { type TuneProgress, tunedDevice } from '../../kernels/device/tuned-device.ts';
import type { Distance } from '../../kernels/diffusion/error-reduction.ts';
import { product } from '../../numbers.ts';
import { MERGED_FROM } from '../adapters/merge-loras.ts';
import type { Cache } from '../cache.ts';
import type { MeasuredPrediction, Prediction } from '../checkpoints/prediction.ts';
import { type Attached, type DenoiserOptions, denoiser } from '../evaluation/denoiser.ts';
import type { Network, Noise } from '../evaluation/evaluation.ts';
import type { Files } from '../files/files.ts';
import { openTensorFile, type TensorFile } from '../files/safetensors.ts';
import type { Coefficients } from '../folders/schedule.ts';
import type { Candidate, ImageGeometry, Level, Model } from '../model.ts';
import type { ModelSummary } from '../model-summary.ts';
import { candidatesOf } from './candidates.ts';
import { readModelConfig, requireClasses } from './families.ts';
import { choosePrecision, type PrecisionMemory } from './precision-check.ts';
import { summarise, temperatureOf } from './summarise.ts';

/** A LoRA to merge into a model. */
export interface Lora {
  /** The path of its file: names of kohya's scripts, of diffusers or of peft. */
  readonly file: string;
  /** The factor of its change; any finite number. Default: 1. */
  readonly weight?: number;
}

/** A textual inversion to add to a text model. */
export interface Embedding {
  /** The path of its file: `.safetensors`, `.pt` or `.bin`. */
  readonly file: string;
  /** The word that stands for it in prompts. Default: the file's own word, else the file's name without its ending. */
  readonly token?: string;
}

export interface OpenModelOptions {
  /** The host's device, which is never destroyed here; or how to open one. */
  readonly device?: GpuDevice | DeviceOptions;
  /**
   * Receives the progress of compiling shaders, which takes some 20 s for a small network on a software adapter that has
   * not compiled it before. `total` grows as further parts of the model are prepared.
   */
  readonly onCompile?: (progress: CompileProgress) => void;
  /**
   * Whether to search for the fastest tiles of the model's kernels on this device, for at most 20 s. Results do not
   * depend on them. Default: once per device and shape, and not on devices for which measured tiles are shipped. `true`
   * searches anew, `false` never.
   */
  readonly tune?: boolean;
  /** Receives the progress of a search for tiles: how many classes of shapes are done. */
  readonly onTune?: (progress: TuneProgress) => void;
  /** Returns the grid in visiting order, given the model's summary. Default: the model's own grid. */
  readonly levels?: (model: ModelSummary) => readonly Level[];
  /** Side of the square image, for latent models. Default: the model's own. */
  readonly imageSize?: number;
  /**
   * Returns the candidates, given the model's summary. `classidx` is the model's class, or NO_CLASS if the network has a
   * null class. Text models need them, with prompts. Default: every class by its own name.
   */
  readonly candidates?: (model: ModelSummary) => readonly Candidate[];
  /**
   * Opens the model for its prediction without a class, or without a prompt. Its only candidate is
   * `{ label: '', classidx: NO_CLASS }`.
   */
  readonly unconditional?: boolean;
  /**
   * The size that Stable Diffusion XL is told of every image: the height and width of its file, and the rows and columns
   * that were cut off above and to the left. Default: what is known of each image.
   */
  readonly sizeConditioning?: ImageGeometry;
  /**
   * What the network predicts: the noise, or v = a·eps - b·x0. Default: what the model's files say. Checkpoints of Stable
   * Diffusion 2.x that do not say it are measured when they are opened.
   */
  readonly prediction?: Prediction;
  /** Receives what a model predicts, if that was measured. */
  readonly onPrediction?: (measured: MeasuredPrediction) => void;
  /**
   * The path of an autoencoder that replaces the model's: a file in the layout of diffusers or of the original training code,
   * or a folder of diffusers.
   */
  readonly vae?: string;
  /** Distance between noise and prediction. Default: the model's own, else l2. */
  readonly distance?: Distance;
  /** Seed of the counter-based noise (default 0), or a safetensors file with `noise` [count, c, h, w]. */
  readonly seed?: number | bigint;
  readonly noiseFile?: string;
  /** The largest number of evaluations in a batch; halved if memory does not suffice. Default: by the model's family. */
  readonly batchSize?: number;
  /** Images in flight. Default: as many as a batch holds evaluations. */
  readonly slots?: number;
  /** How weights are stored. Default: by precision; in f32, a large file that holds only f16 stays f16. */
  readonly weightDtype?: WeightDtype;
  /**
   * How evaluations store weights and activations; sums, norms, softmax and errors are f32 with either. `auto`, the
   * default, is f16 if it was measured faster on the device and changes differences between candidates by at most 5 %.
   * That is measured at the model's first opening on a GPU, and remembered in the user's cache folder; on a device that
   * computes in software, and in a browser, `auto` is f32. Gradients are f32 always.
   */
  readonly precision?: 'auto' | 'f32' | 'f16';
  /** LoRAs that are merged into the model's weights, in f32, when it is opened. Only models of diffusers have them. */
  readonly loras?: readonly Lora[];
  /** Textual inversions: each becomes a word of the prompts. Only text models have them. */
  readonly embeddings?: readonly Embedding[];
  /** Bytes of activations that a gradient may keep on the device. Default: 1 GiB (`DifferentiableOptions`). */
  readonly gradientBytes?: number;
}

/** The options of a model that is given by its files; the file of noises is given as its folder's files and its name there. */
export interface LoadOptions
  extends Omit<
    OpenModelOptions,
    'noiseFile' | 'prediction' | 'onPrediction' | 'vae' | 'loras' | 'embeddings'
  > {
  readonly noiseFile?: readonly [files: Files, name: string] | undefined;
  /** Remembers the tiles that were found, and the precision. Default: they are forgotten when the process ends. */
  readonly cache?: Cache;
  /** See `Model.overlays`. */
  readonly overlays?: Model['overlays'];
  /** Identifies the model's files and the version of the kernels; '' if the files cannot be told apart. */
  readonly fingerprint?: (() => Promise<string>) | undefined;
  /** Returns what level `i` does to an image and to the network's output. Default: what the model's files say. */
  readonly coefficients?: (level: Level, i: number) => Coefficients;
}

/** Returns the device with the tiles that are remembered for it, and the search for others. */
export async function withTiles(
  device: Device,
  { tune, onTune, cache }: Pick<LoadOptions, 'tune' | 'onTune' | 'cache'>,
): Promise<Device> {
  const scope = `tiles ${device.capabilities.description}`;
  return tunedDevice(device, {
    tune,
    onTune,
    remembered: await cache?.read(scope),
    remember: cache && ((key, tile) => cache.write(scope, key, tile)),
  });
}

/** Returns the memory of the precision that `auto` chose for a model; undefined if nothing can be remembered. */
function precisionMemory({ cache, fingerprint }: LoadOptions): PrecisionMemory | undefined {
  if (!cache || !fingerprint) return undefined;
  const scopeOf = (device: string) => `precision ${device}`;
  return {
    async read(device) {
      const key = await fingerprint();
      if (key === '') return 'f32';
      const value = (await cache.read(scopeOf(device))).get(key);
      return value === 'f32' || value === 'f16' ? value : undefined;
    },
    write: async (device, precision) => cache.write(scopeOf(device), await fingerprint(), precision),
  };
}

async function readNoise(
  { noiseFile, seed = 0 }: LoadOptions,
  image: readonly number[],
  levels: number,
): Promise<Noise> {
  if (noiseFile === undefined) return { seed: BigInt(seed) };
  const file = await openTensorFile(...noiseFile);
  try {
    const shape = file.tensors.get('noise')?.shape;
    if (shape?.length !== 4 || !image.every((side, i) => shape[i + 1] === side))
      throw new ModelError(
        `${file.path}: expected the tensor "noise" [n, ${image.join(', ')}], ${shape ? `got [${shape.join(', ')}]` : 'it has none'}`,
      );
    if (shape[0]! < levels)
      throw new ModelError(`${file.path}: expected at least one noise per level, ${levels}, got ${shape[0]}`);
    return { values: await file.readF32('noise'), count: shape[0]! };
  } finally {
    await file.close();
  }
}

/** Returns the model's kappa if it applies: for the distance, levels and weights with which it was measured. */
function kappaOf(
  model: ModelSummary,
  { distance }: LoadOptions,
  levels: readonly Level[],
): number | undefined {
  const own = new Map(model.levels.map(({ t, sigma, weight }) => [t ?? sigma, weight]));
  const same = levels.every(({ t, sigma, weight }) => own.get(t ?? sigma) === weight);
  return same && (distance ?? model.distance) === model.distance ? model.kappa : undefined;
}

/** Size of a weight file above which f16 weights stay f16. Below, f32 is faster and its memory does not matter. */
const LARGE_BYTES = 2 ** 28;

/** Returns f16 if the file is large and holds only f16, so that no precision is lost; or did before LoRAs were merged. */
function dtypeOf(file: TensorFile): WeightDtype {
  const tensors = [...file.tensors.values()];
  const bytes = tensors.reduce((sum, { shape }) => sum + 2 * product(shape), 0);
  const halves = tensors.every(({ dtype }) => dtype === 'F16') || file.metadata.get(MERGED_FROM) === 'F16';
  return bytes > LARGE_BYTES && halves ? 'f16' : 'f32';
}

/**
 * A model that is ready for any device: the network, and how to evaluate it. Its owner closes the file when everything is
 * planned; gradients are planned when they are first used.
 */
export interface LoadedModel {
  readonly network: Network;
  /** See `Family.onlyF32`. */
  readonly onlyF32: boolean;
  readonly evaluation: DenoiserOptions;
  /** Puts encoded prompts or an image encoder on a device. */
  readonly attach: (device: Device) => Promise<Attached>;
  /** A second call only waits for the first. */
  readonly close: () => Promise<void>;
}

/** Returns how a model is evaluated in a precision. In f16 its weights are f16 too, unless the caller chose their type. */
const inPrecision = (
  evaluation: DenoiserOptions,
  precision: Stored,
  weightDtype: WeightDtype | undefined,
): DenoiserOptions =>
  precision === 'f32' ? evaluation : { ...evaluation, precision, weightDtype: weightDtype ?? 'f16' };

/**
 * Reads a model and resolves every option, without a device. Of the precision `auto`, only a device can tell what it is.
 * @throws ModelError naming the file (and tensor) that is not in order; UnsupportedError if the model cannot be f16.
 */
export async function loadModel(files: Files, options: LoadOptions = {}): Promise<LoadedModel> {
  const { family, config: own } = await readModelConfig(files);
  const config = options.unconditional ? (family.unconditional?.(own) ?? own) : own;
  const read = { family, config };
  if (!options.unconditional) requireClasses(read);
  const model = summarise(read, options.imageSize);
  const familyLevels = family.levels(config);
  const levels = (options.levels?.(model) ?? model.levels).map((level, i) => ({
    ...level,
    coefficients: options.coefficients?.(level, i) ?? familyLevels.coefficients(level),
  }));
  const { candidates, labels } = candidatesOf(family.candidates(config), model, options);
  const { onlyF32 = false } = family;
  if (onlyF32 && options.precision === 'f16')
    throw new UnsupportedError(
      `${model.name}: expected precision auto or f32, got f16, in which an optimal denoiser loses the differences between images`,
    );
  const { sideMultiple = 1, inputShape } = model;
  if (inputShape[1] % sideMultiple !== 0)
    throw new UnsupportedError(
      `${model.name}: expected images whose side is a multiple of ${sideMultiple}, got ${inputShape[1]}`,
    );
  const file = await openTensorFile(config.files, config.weights);
  try {
    const weightDtype = options.weightDtype ?? dtypeOf(file);
    const { sizeConditioning } = options;
    const request = { file, levels, candidates, inputShape, weightDtype, sizeConditioning };
    const { network, attach = async () => ({}) } = await family.network(config, request);
    if (sizeConditioning && !network.imageRow)
      throw new UnsupportedError(
        `${model.name}: a size conditioning was given, but only Stable Diffusion XL takes the size of images`,
      );
    // If the candidates of a view cost nothing each, batches and images in flight are counted in views.
    const perView = network.take ? candidates.length : 1;
    const batchSize = options.batchSize ?? family.batch * perView;
    const evaluation: DenoiserOptions = {
      name: model.name,
      overlays: options.overlays,
      crop: model.crop,
      candidates,
      labels,
      levels,
      temperature: temperatureOf(config.card, familyLevels, levels),
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
    const chosen = options.precision === 'f16' ? 'f16' : 'f32';
    return {
      network,
      onlyF32,
      evaluation: inPrecision(evaluation, chosen, options.weightDtype),
      attach,
      close,
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Opens a model as a classifier. Throws what `openModel` throws. */
export async function openFiles(files: Files, options: LoadOptions = {}): Promise<Model> {
  const { network, evaluation, onlyF32, attach, close } = await loadModel(files, options);
  let device: Device | undefined;
  let attached: Attached | undefined;
  try {
    const given = options.device;
    device = await openDevice({
      ...(given && 'queue' in given ? { device: given } : given),
      ...(options.onCompile && { onCompile: options.onCompile }),
    });
    device = await withTiles(device, options);
    const opened = device;
    const parts = await attach(opened);
    attached = parts;
    const { precision: choice = 'auto', weightDtype } = options;
    const { destroy: _, ...shared } = parts;
    const precision = await choosePrecision(
      onlyF32 ? 'f32' : choice,
      opened.capabilities,
      precisionMemory(options),
      (tried) =>
        denoiser(
          { ...opened, close: () => {} },
          network,
          inPrecision(evaluation, tried, weightDtype),
          shared,
        ),
    );
    const model = await denoiser(opened, network, inPrecision(evaluation, precision, weightDtype), {
      ...parts,
      destroy() {
        // `close` of a model returns nothing to wait for. The file was only read, so failing to close it loses no data.
        close().catch(() => undefined);
        parts.destroy?.();
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
