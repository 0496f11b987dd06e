// What a model folder holds, for a person: its networks, what an evaluation costs, and everything that is wrong
// with it. Where opening a model stops at the first fault, this goes on and lists them all.

import { ModelError, ShapeError, UnsupportedError } from '../../errors.ts';
import { costOf } from '../core/cost.ts';
import { trace } from '../evaluation/evaluation.ts';
import { type Files, nameIn } from '../files/files.ts';
import { readJson } from '../files/json.ts';
import { parametersOf } from '../files/parameters.ts';
import { openTensorFile, type TensorFile } from '../files/safetensors.ts';
import { findWeights } from './families.ts';
import { OPTIMAL_CLASS } from '../families/optimal/optimal-family.ts';
import { type PredictionType, readSchedule } from '../folders/schedule.ts';
import type { ModelSummary } from '../model-summary.ts';
import { clipTextTensors, withoutBuffers } from '../networks/clip-text.ts';
import { readClipTextConfig } from '../networks/clip-text-config.ts';
import { ditTensors } from '../networks/dit.ts';
import { readDitConfig } from '../networks/dit-config.ts';
import { edmParameters } from '../networks/edm-unet.ts';
import { readEdmConfig } from '../networks/read-edm-config.ts';
import { unet2dTensors } from '../networks/unet2d.ts';
import { unet2dConditionTensors } from '../networks/unet2d-condition.ts';
import { readUNet2DConditionConfig } from '../networks/unet2d-condition-config.ts';
import { readUNet2DConfig } from '../networks/unet2d-config.ts';
import { vaeEncoderParameters } from '../networks/vae-encoder.ts';
import { readVaeEncoderConfig } from '../networks/vae-encoder-config.ts';
import { modelFiles } from '../node/model-path.ts';
import { readTextEncoder } from '../text/prompt-encoder.ts';
import { loadModel, type OpenModelOptions } from './open-model.ts';
import { readModel } from './summarise.ts';

/** One network of a folder. */
export interface NetworkDescription {
  /** The folder it is in, such as `unet`; `.` for the model's own. */
  readonly part: string;
  readonly className: string;
  /** Its main numbers, under the names its configuration gives them. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Values of all tensors in its file, and their bytes there. */
  readonly parameters: number;
  readonly bytes: number;
  /** Values by their type in the file, such as F16. */
  readonly dtypes: Readonly<Record<string, number>>;
  /** Files the weights are in. */
  readonly shards: number;
}

/** What an evaluation costs. */
export interface EvaluationCost {
  /** Floating-point operations of one evaluation by itself. */
  readonly flop: number;
  /**
   * What of `flop` is spent once for all candidates of an (image, level, noise), where the network shares a part
   * between them; a multi-head network shares all but picking a head.
   */
  readonly sharedFlop?: number;
  /** Bytes of the denoising network's weights on a device. */
  readonly weightBytes: number;
  /** Least bytes of activations for one evaluation. */
  readonly activationBytes: number;
}

/** A model folder, as far as it can be read. */
export interface Description {
  readonly name: string;
  readonly path: string;
  /** The class in `model_index.json`, or of an EDM model or an optimal denoiser in its `config.json`. */
  readonly pipeline?: string;
  readonly predictionType?: PredictionType;
  /** What the folder says as a model; absent where it is none. */
  readonly model?: ModelSummary;
  readonly networks: readonly NetworkDescription[];
  readonly cost?: EvaluationCost;
  /** Everything that is missing, unexpected or not supported, a sentence each. */
  readonly problems: readonly string[];
}

/** How a kind of network is found and checked: its file is that of the weights, opened. */
interface Kind {
  readonly stem: string;
  /** Throws `ModelError` where the configuration is not understood, or the file is not the network. */
  readonly check: (files: Files, config: string, file: TensorFile) => Promise<unknown>;
}

const transformer: Kind = {
  stem: 'diffusion_pytorch_model',
  check: async (files, config, file) => parametersOf(file, ditTensors(await readDitConfig(files, config))),
};

/** The networks that are known, by their class. */
const KINDS: ReadonlyMap<string, Kind> = new Map<string, Kind>([
  [
    'UNet2DModel',
    {
      stem: 'diffusion_pytorch_model',
      check: async (files, config, file) =>
        parametersOf(file, unet2dTensors(await readUNet2DConfig(files, config))),
    },
  ],
  [
    'UNet2DConditionModel',
    {
      stem: 'diffusion_pytorch_model',
      check: async (files, config, file) =>
        parametersOf(file, unet2dConditionTensors(await readUNet2DConditionConfig(files, config))),
    },
  ],
  ['DiTTransformer2DModel', transformer],
  ['Transformer2DModel', transformer],
  [
    'CLIPTextModel',
    {
      stem: 'model',
      check: async (files, config, file) =>
        parametersOf(withoutBuffers(file), clipTextTensors(await readClipTextConfig(files, config))),
    },
  ],
  [
    'AutoencoderKL',
    {
      stem: 'diffusion_pytorch_model',
      check: async (files, config, file) =>
        vaeEncoderParameters(file, await readVaeEncoderConfig(files, config)),
    },
  ],
  [
    'EDMPrecond',
    {
      stem: 'model',
      check: async (files, config, file) => edmParameters(file, await readEdmConfig(files, config)),
    },
  ],
]);

/** Numbers of a configuration that say how large a network is and what it is for. */
const NUMBERS = [
  'sample_size',
  'in_channels',
  'block_out_channels',
  'layers_per_block',
  'down_block_types',
  'attention_head_dim',
  'cross_attention_dim',
  'use_linear_projection',
  'upcast_attention',
  'num_class_embeds',
  'latent_channels',
  'scaling_factor',
  'hidden_size',
  'intermediate_size',
  'num_hidden_layers',
  'num_layers',
  'num_attention_heads',
  'patch_size',
  'num_embeds_ada_norm',
  'hidden_act',
  'vocab_size',
  'max_position_embeddings',
  'model_type',
  'img_resolution',
  'img_channels',
  'label_dim',
  'label_dropout',
  'augment_dim',
  'sigma_data',
  'model_channels',
  'channel_mult',
  'num_blocks',
  'attn_resolutions',
];

/** Collects the faults of a folder instead of stopping at the first. */
function newProblems() {
  const found = new Set<string>();
  return {
    found,
    /** Runs a step; a fault of the folder is noted, any other error is thrown on. */
    async try<T>(step: () => Promise<T>): Promise<T | undefined> {
      try {
        return await step();
      } catch (error) {
        const known = [ModelError, UnsupportedError, ShapeError].some((kind) => error instanceof kind);
        if (!known) throw error;
        found.add((error as Error).message);
        return undefined;
      }
    },
  };
}

type Problems = ReturnType<typeof newProblems>;

/** The keys of a JSON object; none of a file that is missing or broken, which readModel says. */
async function keysOf(files: Files, name: string): Promise<Readonly<Record<string, unknown>>> {
  try {
    const value = await readJson(files, name);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** The networks that a folder names, each with its class, and the class of the whole. */
async function readIndex(files: Files, present: ReadonlySet<string>) {
  const ofPipeline = present.has('model_index.json');
  const index = await keysOf(files, ofPipeline ? 'model_index.json' : 'config.json');
  const pipeline = typeof index._class_name === 'string' ? index._class_name : undefined;
  if (!ofPipeline) {
    if (pipeline === OPTIMAL_CLASS) return { pipeline, parts: [] };
    if (pipeline !== 'EDMPrecond') return { parts: [] };
    const parts = present.has('uncond') ? ['.', 'uncond'] : ['.'];
    return { pipeline, parts: parts.map((part) => ({ part, className: pipeline })) };
  }
  const parts = Object.entries(index).flatMap(([part, value]) =>
    Array.isArray(value) && typeof value[1] === 'string' ? [{ part, className: value[1] }] : [],
  );
  return { pipeline, parts };
}

/** The main numbers of a configuration; none where it cannot be read, which its check says. */
async function numbersOf(files: Files, config: string): Promise<Record<string, unknown>> {
  const entries = Object.entries(await keysOf(files, config));
  return Object.fromEntries(entries.filter(([key, value]) => NUMBERS.includes(key) && value !== null));
}

async function describeNetwork(
  files: Files,
  part: string,
  className: string,
  kind: Kind,
  problems: Problems,
): Promise<NetworkDescription | undefined> {
  const folder = part === '.' ? '' : part;
  const config = nameIn(folder, 'config.json');
  const file = await problems.try(async () =>
    openTensorFile(files, await findWeights(files, folder, kind.stem)),
  );
  if (!file) return undefined;
  try {
    await problems.try(() => kind.check(files, config, file));
    const tensors = [...file.tensors.values()];
    const dtypes: Record<string, number> = {};
    let parameters = 0;
    for (const { dtype, shape } of tensors) {
      const values = shape.reduce((product, side) => product * side, 1);
      dtypes[dtype] = (dtypes[dtype] ?? 0) + values;
      parameters += values;
    }
    return {
      part,
      className,
      config: await numbersOf(files, config),
      parameters,
      bytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0),
      dtypes,
      shards: new Set(tensors.map((tensor) => tensor.file)).size,
    };
  } finally {
    await file.close();
  }
}

/** What a model chooses between where nobody says: its classes, or two prompts to reckon with. */
const someCandidates: NonNullable<OpenModelOptions['candidates']> = ({ conditioning, labels }) =>
  conditioning === 'text'
    ? ['', 'a photo'].map((prompt, classidx) => ({ label: prompt, classidx, prompt }))
    : labels.map((label, classidx) => ({ label, classidx }));

/**
 * The cost of an evaluation of a folder opened with some options, without a device.
 * @throws ModelError naming the file (and tensor) that is not in order.
 */
export async function evaluationCost(
  model: string | Files,
  options: OpenModelOptions = {},
): Promise<EvaluationCost> {
  const { network, evaluation, close } = await loadModel(model, { candidates: someCandidates, ...options });
  try {
    const { flop, constants, activationBytes } = costOf(trace(network, evaluation, 1));
    // What a second candidate of the same view adds is all that is its own.
    const shared = network.shared && {
      sharedFlop: 2 * flop - costOf(trace(network, evaluation, 2, 1)).flop,
    };
    const width = evaluation.weightDtype === 'f16' ? 2 : 4;
    return { flop, ...shared, weightBytes: width * constants, activationBytes };
  } finally {
    await close();
  }
}

/** Floating-point operations of evaluations that have so many distinct (image, level, noise) among them, `views`. */
export const flopOf = (
  { flop, sharedFlop = 0 }: Pick<EvaluationCost, 'flop' | 'sharedFlop'>,
  { evaluations, views }: { readonly evaluations: number; readonly views: number },
): number => views * sharedFlop + evaluations * (flop - sharedFlop);

/**
 * Describes a model, given by the path of its folder or by the name of a shipped one, whatever state it is in; every
 * fault of it is among the `problems`.
 * @throws ModelError listing the shipped models if there is no such model.
 */
export async function describeModel(
  model: string | Files,
  options: OpenModelOptions = {},
): Promise<Description> {
  const files = await modelFiles(model);
  const problems = newProblems();
  // A folder that cannot be read is a problem that readModel finds.
  const present = new Set(await files.list('').catch(() => undefined));
  const { pipeline, parts } = await readIndex(files, present);
  const networks: NetworkDescription[] = [];
  for (const { part, className } of parts) {
    const kind = KINDS.get(className);
    if (!kind) continue;
    if (part !== '.' && !present.has(part)) problems.found.add(`${files.describe(part)}: no such folder`);
    else {
      const network = await describeNetwork(files, part, className, kind, problems);
      if (network) networks.push(network);
    }
  }
  if (parts.some(({ part }) => part === 'tokenizer'))
    await problems.try(() => readTextEncoder({ files, tokenizer: 'tokenizer', textEncoder: 'text_encoder' }));
  const schedule = present.has('scheduler')
    ? await problems.try(() => readSchedule(files, 'scheduler/scheduler_config.json'))
    : undefined;
  const summary = await problems.try(() => readModel(files));
  const schedulerTold = [...problems.found].some((problem) => problem.includes(files.describe('scheduler')));
  if (parts.some(({ part }) => part === 'scheduler') && !present.has('scheduler') && !schedulerTold)
    problems.found.add(`${files.describe('scheduler')}: no such folder`);
  const cost =
    problems.found.size === 0 ? await problems.try(() => evaluationCost(files, options)) : undefined;
  return {
    name: files.name,
    path: files.describe(''),
    ...(pipeline === undefined ? {} : { pipeline }),
    ...(schedule ? { predictionType: schedule.predictionType } : {}),
    ...(summary ? { model: summary } : {}),
    networks,
    ...(cost ? { cost } : {}),
    problems: [...problems.found],
  };
}
