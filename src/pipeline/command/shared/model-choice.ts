// Makes options for opening a model from checked settings.

import { readFile, stat } from 'node:fs/promises';
import { UsageError } from '../../../errors.ts';
import type { Level, Model } from '../../../graph/model.ts';
import type { ModelSummary } from '../../../graph/model-summary.ts';
import type { OpenModelOptions } from '../../../graph/models/open-model.ts';
import { RDC_RANGE } from '../../../graph/sigmas.ts';
import { gridShare, visitingOrder } from '../../../graph/visiting.ts';
import { ascending, parseGrid } from '../../deciding/levels.ts';
import type { ChosenStrategy } from '../../deciding/strategy-entry.ts';
import { sigmaLevels, weigh, weightings } from '../../deciding/weighting.ts';
import type { Values } from '../options/table.ts';
import { candidatesFor, readPrompts } from './candidates.ts';
import { refusing } from './refusing.ts';

/** Opens a model folder: `openModel` of the graph, or a fake of it. */
export type OpenFolder = (folder: string, options: OpenModelOptions) => Promise<Model>;

/** The settings that evaluations of all commands depend on. */
export type EvaluationSettings = Values<
  'imageSize' | 'timesteps' | 'sigmas' | 'loss' | 'weighting' | 'seed' | 'noise' | 'batch' | 'concurrency'
> &
  Partial<Values<'sizeConditioning'>> & { readonly deciding?: Pick<ChosenStrategy, 'gridLength'> };

/** The settings that choose the candidates. */
export type ChoiceSettings = Values<'labels' | 'template' | 'prompts'>;

/** Reads the numbers in a file: a JSON array, or numbers separated by commas and white space. */
async function readWeights(path: string): Promise<number[]> {
  const known = `${weightings.join(', ')}, or a file`;
  const refuse = refusing(`--weighting: expected ${known}; "${path}" cannot be read`);
  const text = await readFile(path, 'utf8').catch(refuse);
  const numbers = text
    .replace(/^\s*\[|\]\s*$/g, '')
    .split(/[\s,]+/)
    .filter((part) => part !== '')
    .map(Number);
  if (numbers.some(Number.isNaN)) throw new UsageError(`${path}: expected nothing but numbers`);
  return numbers;
}

/** Returns whether a model's noise levels are sigmas. */
const isContinuous = ({ levels }: ModelSummary): boolean => levels[0]?.sigma !== undefined;

/** Returns the grid that an option gives, or that a strategy needs because it has a fixed number of levels. */
function gridText(
  { timesteps, sigmas, deciding }: EvaluationSettings,
  model: ModelSummary,
): string | undefined {
  if (timesteps ?? sigmas) return timesteps ?? sigmas;
  const length = deciding?.gridLength;
  if (length === undefined) return undefined;
  return isContinuous(model) ? `linspace:${RDC_RANGE.join(':')}:${length + 1}:left` : `even:${length}`;
}

/** Returns the grid in visiting order with its weights; weights from a file belong to the ascending grid. */
function levelsOf(
  settings: EvaluationSettings,
  weighting: string | readonly number[] | undefined,
  model: ModelSummary,
): readonly Level[] {
  const text = gridText(settings, model);
  if (text !== undefined) return gridOf(text, weighting, model);
  if (weighting === undefined) return model.levels;
  const grid = ownGrid(model);
  const order = ascending(grid);
  const weights = weigh(
    weighting,
    order.map((i) => grid[i]!),
    statisticsOf(model),
  );
  const levels: Level[] = grid.map((level) => ({ ...level, weight: 1 }));
  order.forEach((at, i) => {
    levels[at] = { ...grid[at]!, weight: weights[i]! };
  });
  return levels;
}

const ownGrid = ({ levels }: ModelSummary): readonly Omit<Level, 'weight'>[] =>
  levels.map(({ t, sigma }) => (t === undefined ? { sigma: sigma! } : { t }));

const statisticsOf = ({ sigmaData }: ModelSummary) => (sigmaData === undefined ? {} : { sigmaData });

/** Returns the grid that a text describes. Without --weighting, sigmas get RDC's weights and timesteps get equal ones. */
function gridOf(
  text: string,
  weighting: string | readonly number[] | undefined,
  model: ModelSummary,
): readonly Level[] {
  const continuous = isContinuous(model);
  const grid = parseGrid(text, continuous ? undefined : model.numTrainTimesteps);
  if ('t' in grid) {
    const levels = grid.t.map((t) => ({ t }));
    const weights = weigh(weighting ?? 'uniform', levels);
    return visitingOrder(levels.length).map((i) => ({ ...levels[i]!, weight: weights[i]! }));
  }
  if (!continuous) throw new UsageError(`--sigmas: ${model.name} has timesteps; use --timesteps even:N`);
  const levels = sigmaLevels(grid, weighting ?? 'rdc-code', statisticsOf(model));
  return visitingOrder(levels.map(gridShare)).map((i) => levels[i]!);
}

/** Checks the side of images before weights are loaded. @throws UsageError if the model cannot take it. */
function checkSide(side: number | undefined, { name, inputShape, sideMultiple }: ModelSummary): void {
  const [, height, width] = inputShape;
  if (side === undefined) return;
  if (sideMultiple === undefined && (side !== height || side !== width))
    throw new UsageError(`--image-size: ${name} takes images of ${width}x${height}, got ${side}`);
  if (sideMultiple !== undefined && side % sideMultiple !== 0)
    throw new UsageError(`--image-size: ${name} takes multiples of ${sideMultiple}, got ${side}`);
}

/**
 * Returns how the graph opens a model for evaluations with these settings, but for the candidates. Reads the files that the
 * settings name.
 *
 * @throws UsageError here, or when the model is opened and the settings do not fit it.
 */
export async function evaluationOptions(settings: EvaluationSettings): Promise<OpenModelOptions> {
  const { weighting, noise, loss, batch, concurrency, imageSize, sizeConditioning } = settings;
  const named = weighting === undefined || weightings.some((name) => name === weighting);
  const weights = named ? weighting : await readWeights(weighting);
  if (noise !== undefined) await stat(noise).catch(refusing(`--noise: ${noise} cannot be read`));
  return {
    levels: (model) => {
      checkSide(imageSize, model);
      return levelsOf(settings, weights, model);
    },
    seed: settings.seed,
    ...(loss ? { distance: loss } : {}),
    ...(noise === undefined ? {} : { noiseFile: noise }),
    ...(imageSize === undefined ? {} : { imageSize }),
    ...(sizeConditioning && { sizeConditioning }),
    ...(batch === undefined ? {} : { batchSize: batch }),
    ...(concurrency === undefined ? {} : { slots: concurrency }),
  };
}

/**
 * Returns how the graph opens a model to classify with these settings.
 *
 * @throws UsageError here, or when the model is opened and the settings do not fit it.
 */
export async function modelOptions(settings: EvaluationSettings & ChoiceSettings): Promise<OpenModelOptions> {
  const { labels, template, prompts } = settings;
  const rows = prompts === undefined ? undefined : await readPrompts(prompts);
  return {
    ...(await evaluationOptions(settings)),
    candidates: (model) => candidatesFor(model, { labels, template, rows }),
  };
}
