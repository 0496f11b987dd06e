// A family of models: how its files are recognised and read, what it states about images, levels and classes, and how its
// network is built. Each family is a folder next to this file; `models/families.ts` lists them.

import type { Device } from '../../kernels/device/device.ts';
import type { WeightDtype } from '../../kernels/device/routine.ts';
import type { Attached } from '../evaluation/denoiser.ts';
import type { Network, NoiseLevel } from '../evaluation/evaluation.ts';
import type { Files } from '../files/files.ts';
import type { TensorFile } from '../files/safetensors.ts';
import type { Card } from '../folders/card.ts';
import type { Coefficients } from '../folders/schedule.ts';
import type { WeightFile } from '../folders/weights.ts';
import type { Candidate, ImageGeometry, Level } from '../model.ts';
import type { ModelSummary } from '../model-summary.ts';

/** The file that says what a model is: the index of a diffusers pipeline, or the configuration of a single network. */
export interface ModelIndex {
  readonly name: 'model_index.json' | 'config.json';
  /** Its `_class_name`. */
  readonly className: string | undefined;
  readonly json: unknown;
  /** Names of the files and folders next to it. */
  readonly present: ReadonlySet<string>;
}

/** What every family reads from a model's files; the weights are those of the denoising network. */
export interface ModelConfig extends WeightFile {
  readonly card: Card | undefined;
}

/** The images that a model takes. */
export type Images = Pick<ModelSummary, 'inputShape' | 'crop' | 'sideMultiple'>;

/** The noise levels of a model. */
export interface Levels
  extends Pick<ModelSummary, 'numTrainTimesteps' | 'timestepSigmas' | 'sigmaData' | 'levels' | 'residual'> {
  /**
   * Returns what a level does to an image and to the network's output.
   * @throws UnsupportedError if the model has no such level.
   */
  readonly coefficients: (level: Level) => Coefficients;
  /** Returns the temperature for a grid of levels if the card has none. Default: 1. */
  readonly temperature?: (levels: readonly Level[]) => number;
}

/** What a model chooses between: its classes, or prompts that the user gives. */
export interface Choices extends Pick<ModelSummary, 'conditioning' | 'labels' | 'heads'> {
  /** The network's number for no class; undefined if the network has none. */
  readonly nullClass?: number | undefined;
  /** Why a model of classes has none, for a message. */
  readonly whyNoClasses?: string;
  /** Why the network has no null class, for a message. */
  readonly whyNoNullClass?: string;
}

/** What a network is built for. */
export interface NetworkRequest {
  /** The weights, which are read when a plan first uses them. */
  readonly file: TensorFile;
  readonly levels: readonly NoiseLevel[];
  readonly candidates: readonly Candidate[];
  readonly inputShape: ModelSummary['inputShape'];
  /**
   * The type of the weights of text and image encoders, which run once per prompt and image. Their activations are f32 in
   * every model: stored as f16, they change the latents of the image encoders in test/golden by 1e-3 of the largest one.
   */
  readonly weightDtype: WeightDtype;
  /** The geometry of every image, for networks that take it as an input. Default: each image's own. */
  readonly sizeConditioning?: ImageGeometry | undefined;
}

/** A network, and what it needs on a device in addition: `attach` puts encoded prompts or an image encoder there. */
export interface FamilyNetwork {
  readonly network: Network;
  readonly attach?: (device: Device) => Promise<Attached>;
}

/** A part of a model that `info` describes. */
export type Part = NetworkPart | OtherPart;

/** A network of a model. */
export interface NetworkPart {
  /** Its folder; '.' is the model's own. */
  readonly part: string;
  readonly className: string;
  readonly network: NetworkKind;
}

/** A part that is not a network. */
interface OtherPart {
  /** Its folder. */
  readonly part: string;
  /** @throws ModelError naming the file that is not in order. */
  readonly check: (files: Files) => Promise<unknown>;
}

/** How a network of one class is described and checked. */
export interface NetworkKind {
  /** The name of its weights, without `.safetensors`. */
  readonly stem: string;
  /** The keys of its configuration that say how large it is and what it is for. */
  readonly numbers: readonly string[];
  /**
   * Checks a configuration and the opened weights.
   * @throws ModelError if the configuration is not understood, or the weights are not those of the network.
   */
  readonly check: (files: Files, config: string, file: TensorFile) => Promise<unknown>;
}

/** A family of models. `Config` is what it reads from the files of one model. */
export interface Family<Config extends ModelConfig = ModelConfig> {
  /** Returns whether the index is that of a model of this family. */
  recognise(index: ModelIndex): boolean;
  /** Reads and checks everything but the weights. @throws ModelError naming the file that is not in order. */
  config(files: Files, index: ModelIndex): Promise<Config>;
  /** Returns the images that the model takes. `imageSize` is their side, for models that let the user choose it. */
  images(config: Config, imageSize?: number): Images;
  levels(config: Config): Levels;
  candidates(config: Config): Choices;
  /** Builds the network. @throws ModelError if the file does not hold the network's tensors. */
  network(config: Config, request: NetworkRequest): Promise<FamilyNetwork>;
  /** Returns the parts of a model that `info` describes, also of a model that is not complete. */
  describe(index: ModelIndex): readonly Part[];
  /** Returns the model that predicts without a class, if that is another network than the model's own. */
  unconditional?(config: Config): Config;
  /** Set if f16 would lose what the model is for, so that it is always f32. */
  readonly onlyF32?: true;
  /** Views of a batch unless the user sets a batch size: enough to fill a device, few enough to fit it. */
  readonly batch: number;
}
