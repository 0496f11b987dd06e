// Which model a run takes and how it is opened: from checked settings to a folder and options for the graph.

import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Level, Model } from '../../graph/model.ts';
import type { ModelSummary, OpenModelOptions } from '../../graph/openmodel.ts';
import { ascending, parseGrid, visitingOrder } from '../deciding/levels.ts';
import { weigh, weightings } from '../deciding/weighting.ts';
import { UsageError } from '../errors.ts';
import { systemCode } from '../images/failures.ts';
import { candidatesByName, candidatesByPrompt, readPrompts } from './candidates.ts';
import type { Settings } from './settings.ts';

/** The model that is taken when none is named. */
export const DEFAULT_MODEL = 'fashion-mnist';

/** The folder of the shipped models; the same from the sources and from what is compiled of them. */
export const SHIPPED = fileURLToPath(new URL('../../../weights/', import.meta.url));

/** Opens a model folder: `openModel` of the graph, or a fake of it. */
export type OpenFolder = (folder: string, options: OpenModelOptions) => Promise<Model>;

const isFolder = (path: string) =>
  stat(path).then(
    (info) => info.isDirectory(),
    () => false,
  );

/**
 * The folder of a model given by path or by the name of a shipped one; a folder of that name comes first.
 *
 * @throws UsageError for a name that is neither.
 */
export async function modelFolder(name: string): Promise<string> {
  if (/[/\\]/.test(name) || (await isFolder(name))) return name;
  const shipped = join(SHIPPED, name);
  if (await isFolder(shipped)) return shipped;
  const entries = await readdir(SHIPPED, { withFileTypes: true }).catch(() => []);
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  throw new UsageError(
    `--model: there is no folder "${name}"; shipped models: ${names.join(', ') || 'none'}`,
  );
}

/** Numbers of a file, in a JSON array or apart by commas and white space. */
async function readWeights(path: string): Promise<number[]> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    const known = `${weightings.join(', ')}, or a file`;
    throw new UsageError(
      `--weighting: wanted ${known}; "${path}" cannot be read (${systemCode(error) ?? error})`,
    );
  });
  const numbers = text
    .replace(/^\s*\[|\]\s*$/g, '')
    .split(/[\s,]+/)
    .filter((part) => part !== '')
    .map(Number);
  if (numbers.some(Number.isNaN)) throw new UsageError(`${path}: wanted numbers and nothing else`);
  return numbers;
}

type Grid = Omit<Level, 'weight'>[];

function gridOf({ timesteps, sigmas }: Settings, model: ModelSummary): Grid {
  const text = timesteps ?? sigmas;
  if (text === undefined)
    return model.levels.map(({ t, sigma }) => (t === undefined ? { sigma: sigma! } : { t }));
  if (sigmas) throw new UsageError(`--sigmas: ${model.name} has timesteps; wanted --timesteps even:N`);
  const grid = parseGrid(text, model.numTrainTimesteps);
  const levels = 't' in grid ? grid.t.map((t) => ({ t })) : grid.sigma.map((sigma) => ({ sigma }));
  return visitingOrder(levels.length).map((i) => levels[i]!);
}

/** The grid in visiting order with its weights; weights of a file belong to the ascending grid. */
function levelsOf(
  settings: Settings,
  weighting: string | readonly number[] | undefined,
  model: ModelSummary,
) {
  if (weighting === undefined && !settings.timesteps && !settings.sigmas) return model.levels;
  const grid = gridOf(settings, model);
  const order = ascending(grid);
  const weights = weigh(
    weighting ?? 'uniform',
    order.map((i) => grid[i]!),
  );
  const levels: Level[] = grid.map((level) => ({ ...level, weight: 1 }));
  order.forEach((at, i) => {
    levels[at] = { ...grid[at]!, weight: weights[i]! };
  });
  return levels;
}

/**
 * How the graph opens a model for these settings. The files that they name are read here.
 *
 * @throws UsageError here, or when the model is opened and the settings do not fit it.
 */
export async function modelOptions(settings: Settings): Promise<OpenModelOptions> {
  const { weighting, labels, prompts, template, noise, loss, batch, concurrency } = settings;
  const named = weighting === undefined || weightings.some((name) => name === weighting);
  const weights = named ? weighting : await readWeights(weighting);
  const rows = prompts === undefined ? undefined : await readPrompts(prompts);
  if (noise !== undefined) {
    await stat(noise).catch((error: unknown) => {
      throw new UsageError(`--noise: ${noise} cannot be read (${systemCode(error) ?? error})`);
    });
  }
  return {
    levels: (model) => levelsOf(settings, weights, model),
    candidates: (model) => {
      if (template !== undefined)
        throw new UsageError(
          `--template makes prompts for text models; ${model.name} has classes of its own`,
        );
      if (labels) return candidatesByName(labels, model.labels);
      if (rows) return candidatesByPrompt(rows, model.labels);
      return model.labels.map((label, classidx) => ({ label, classidx }));
    },
    seed: settings.seed,
    ...(loss ? { distance: loss } : {}),
    ...(noise === undefined ? {} : { noiseFile: noise }),
    ...(batch === undefined ? {} : { batchSize: batch }),
    ...(concurrency === undefined ? {} : { slots: concurrency }),
  };
}

/**
 * Whether the settings fit an opened model.
 *
 * @throws UsageError when `--image-size` asks for what the model does not take.
 */
export function checkModel({ imageSize }: Settings, model: Model): void {
  const [, height, width] = model.inputShape;
  if (imageSize !== undefined && (imageSize !== height || imageSize !== width))
    throw new UsageError(`--image-size: ${model.name} takes images of ${width}x${height}, got ${imageSize}`);
}
