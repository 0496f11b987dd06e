// card.json: how a model classifies best, found once when it was trained or calibrated. Every entry is optional.

import { z } from 'zod';
import { ModelError } from '../../errors.ts';
import type { Distance } from '../../kernels/diffusion/error-reduction.ts';
import type { Files } from '../files/files.ts';
import { checked, readJson } from '../files/json.ts';
import type { Familiar } from '../model.ts';

/** The entries of a card. */
export interface Card {
  /** Timesteps in the best order of visiting them, each once. */
  readonly timesteps?: readonly number[] | undefined;
  /** The same for a model whose levels are sigmas. */
  readonly sigmas?: readonly number[] | undefined;
  /** Weight of the errors of each of `timesteps` or `sigmas`, in the same order. */
  readonly weights?: readonly number[] | undefined;
  /** Divides differences of weighted mean errors before the softmax. */
  readonly temperature?: number | undefined;
  /** Noise-to-signal scale of error gaps; see `Model.kappa`. */
  readonly kappa?: number | undefined;
  readonly loss?: Distance | undefined;
  /** See `Model.familiar`. */
  readonly familiar?: Familiar | undefined;
  /** How many of the first class embeddings are classes (a null class for guidance usually comes last). */
  readonly classes?: number | undefined;
}

const square = z.array(z.array(z.number())).min(1);

const familiar = z.strictObject({
  t: z.int().min(0).optional(),
  sigma: z.number().positive().optional(),
  means: square,
  precision: square,
  threshold: z.number().positive(),
  falseAlarms: z.number().gt(0).lt(1),
});

/** What a `card.json` may hold, apart from what depends on the model. */
const cardSchema = z.strictObject({
  timesteps: z.array(z.int().min(0)).min(1).optional(),
  sigmas: z.array(z.number().positive()).min(1).optional(),
  weights: z.array(z.number().min(0)).optional(),
  temperature: z.number().positive().optional(),
  kappa: z.number().positive().optional(),
  loss: z.enum(['l2', 'l1', 'huber']).optional(),
  familiar: familiar.optional(),
  classes: z.int().min(1).optional(),
});

/** Checks what a `card.json` holds, apart from what depends on the model. @throws ModelError naming the file. */
export function checkCard(value: unknown, file: string): void {
  checked(cardSchema, value, file);
}

/** The name of the file in a model's folder. */
export const CARD = 'card.json';

/**
 * Reads a model's card. `numTrainTimesteps` is the number of the model's timesteps, undefined if its levels are sigmas.
 * Returns undefined if the model has no card.
 * @throws ModelError naming the file if it is no card of such a model.
 */
export async function readCard(
  files: Files,
  numTrainTimesteps: number | undefined,
): Promise<Card | undefined> {
  if (!(await files.list(''))?.includes(CARD)) return undefined;
  return parseCard(await readJson(files, CARD), numTrainTimesteps, files.describe(CARD));
}

/** Checks a parsed `card.json`; `file` is for messages. */
export function parseCard(value: unknown, numTrainTimesteps: number | undefined, file: string): Card {
  const card = checked(cardSchema, value, file);
  const refuse = (what: string): ModelError => new ModelError(`${file}: ${what}`);
  const { timesteps, sigmas, weights } = card;
  if (numTrainTimesteps === undefined && timesteps)
    throw refuse("expected sigmas, which are the model's levels, got timesteps");
  if (numTrainTimesteps !== undefined && sigmas)
    throw refuse("expected timesteps, which are the model's levels, got sigmas");
  const outside = timesteps?.find((t) => t >= numTrainTimesteps!);
  if (outside !== undefined)
    throw refuse(`timestep ${outside} is outside 0 to ${numTrainTimesteps! - 1} of the schedule`);
  const levels = timesteps ?? sigmas;
  const [one, several] = numTrainTimesteps === undefined ? ['sigma', 'sigmas'] : ['timestep', 'timesteps'];
  const seen = new Set<number>();
  const twice = levels?.find((level) => seen.size === seen.add(level).size);
  if (twice !== undefined) throw refuse(`${one} ${twice} is listed twice`);
  if (weights && !levels) throw refuse(`expected ${several} for the weights, got none`);
  if (weights && weights.length !== levels?.length)
    throw refuse(`expected ${levels?.length} weights for as many ${several}, got ${weights.length}`);
  if (weights?.every((weight) => weight === 0)) throw refuse('all weights are 0');
  if (card.familiar) checkFamiliar(card.familiar, one, refuse);
  return card;
}

/** Checks a card's `familiar` entry: it names one level of the model's kind, and its matrices are square. */
function checkFamiliar(
  { t, sigma, means, precision }: Familiar,
  level: string,
  refuse: (what: string) => ModelError,
): void {
  if ((t === undefined) === (sigma === undefined) || (t === undefined) !== (level === 'sigma'))
    throw refuse(`familiar: expected one ${level}`);
  const bad = [...means, ...precision].find((row) => row.length !== means.length);
  if (bad || precision.length !== means.length)
    throw refuse(
      `familiar: expected means and precision of ${means.length} x ${means.length} values, got ${bad ? `a row of ${bad.length}` : `${precision.length} rows`}`,
    );
}
