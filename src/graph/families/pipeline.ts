// What the families that diffusers saves as pipelines share: reading `model_index.json`, the components it names, and the
// schedule of timesteps.

import { z } from 'zod';
import { ModelError, UnsupportedError } from '../../errors.ts';
import type { Files } from '../files/files.ts';
import { checked, quote } from '../files/json.ts';
import { readCard } from '../folders/card.ts';
import { id2labelSchema } from '../folders/labels.ts';
import { coefficients, readSchedule, type Schedule } from '../folders/schedule.ts';
import { findWeights } from '../folders/weights.ts';
import type { Level } from '../model.ts';
import type { Levels, ModelConfig, ModelIndex, NetworkKind, NetworkPart } from './family.ts';

/** What every pipeline has. */
export interface PipelineConfig extends ModelConfig {
  readonly schedule: Schedule;
}

/** The name of diffusers' weights, without `.safetensors`. */
const STEM = 'diffusion_pytorch_model';

const component = z.tuple([z.string().nullable(), z.string().nullable()]);
const schema = z.object({
  unet: component.optional(),
  vae: component.optional(),
  text_encoder: component.optional(),
  tokenizer: component.optional(),
  text_encoder_2: component.optional(),
  tokenizer_2: component.optional(),
  transformer: component.optional(),
  id2label: id2labelSchema,
  /** Set for a pixel model whose last convolution predicts for every class; by default its channels tell. */
  multi_head: z.boolean().nullish(),
});

/** The components of pipelines that are read here. */
type Component =
  | 'unet'
  | 'vae'
  | 'transformer'
  | 'text_encoder'
  | 'tokenizer'
  | 'text_encoder_2'
  | 'tokenizer_2';

/** A pipeline that is being read. */
export interface Pipeline {
  /** The path of its index, for messages. */
  readonly indexFile: string;
  readonly id2label: Readonly<Record<string, string>> | undefined;
  readonly multiHead: boolean | undefined;
  /** Reads card, schedule and the place of the weights; `part` is the folder of the denoising network. */
  readonly common: (part: string) => Promise<PipelineConfig>;
}

/**
 * Begins to read a pipeline. `components` are the classes that each of its components may have; a component that the index
 * does not name is taken for the expected one.
 * @throws ModelError if the index is not in order, or names another class.
 */
export function openPipeline(
  files: Files,
  { name, json }: ModelIndex,
  components: Partial<Record<Component, readonly string[]>>,
): Pipeline {
  const indexFile = files.describe(name);
  const index = checked(schema, json, indexFile);
  for (const [part, expected] of Object.entries(components)) {
    const entry = index[part as Component];
    if (entry && !expected.includes(entry[1] ?? ''))
      throw new ModelError(
        `${indexFile}: expected the ${part} to be ${expected.join(' or ')}, got ${quote(entry[1])}`,
      );
  }
  return {
    indexFile,
    id2label: index.id2label ?? undefined,
    multiHead: index.multi_head ?? undefined,
    async common(part) {
      const weights = await findWeights(files, part, STEM);
      const schedule = await readScheduler(files);
      const card = await readCard(files, schedule.numTrainTimesteps);
      return { files, weights, schedule, card };
    },
  };
}

/** Reads the schedule, which also says what the network predicts: nothing is guessed if the file is missing. */
async function readScheduler(files: Files): Promise<Schedule> {
  const file = 'scheduler/scheduler_config.json';
  if (!(await files.list('scheduler'))?.includes('scheduler_config.json'))
    throw new ModelError(
      `${files.describe(file)}: no such file; without it, it is unknown whether the network predicts epsilon or v; copy it from where the model came from`,
    );
  return readSchedule(files, file);
}

/**
 * Returns the levels of a model with a schedule of timesteps: the card's, or `count` evenly spaced ones. The network's
 * output at t is multiplied by `outputScale(t)`.
 */
export function timestepLevels(
  { files, card, schedule }: PipelineConfig,
  count: number,
  outputScale: (t: number) => number = () => 1,
): Levels {
  const { numTrainTimesteps: T, alphasCumprod } = schedule;
  const own = Math.min(count, T);
  const even = Array.from({ length: own }, (_, k) => Math.floor(((k + 0.5) * T) / own));
  return {
    numTrainTimesteps: T,
    timestepSigmas: Array.from(alphasCumprod, (alphaBar) => Math.sqrt((1 - alphaBar) / alphaBar)),
    levels: (card?.timesteps ?? even).map((t, i) => ({ t, weight: card?.weights?.[i] ?? 1 })),
    residual: 'eps',
    coefficients({ t, sigma }: Level) {
      if (t === undefined || !Number.isInteger(t) || t < 0 || t >= T)
        throw new UnsupportedError(
          `${files.name}: expected a timestep from 0 to ${T - 1}, got ${t ?? `sigma ${sigma}`}`,
        );
      const found = coefficients(schedule, t);
      return { ...found, alpha: found.alpha * outputScale(t) };
    },
  };
}

/** Returns the components of a pipeline whose class is among `networks`. */
export function components(
  { name, json }: ModelIndex,
  networks: Readonly<Record<string, NetworkKind>>,
): NetworkPart[] {
  if (name !== 'model_index.json' || typeof json !== 'object' || json === null) return [];
  return Object.entries(json).flatMap(([part, value]) => {
    const className: unknown = Array.isArray(value) ? value[1] : undefined;
    const network = Object.entries(networks).find(([name]) => name === className);
    return network ? [{ part, className: network[0], network: network[1] }] : [];
  });
}

/** The keys that tell the size of diffusers' convolutional networks. */
export const CONVOLUTIONAL = [
  'sample_size',
  'in_channels',
  'block_out_channels',
  'layers_per_block',
  'down_block_types',
] as const;

/** Describes a network of diffusers. */
export const diffusersNetwork = (numbers: readonly string[], check: NetworkKind['check']): NetworkKind => ({
  stem: STEM,
  numbers,
  check,
});
