// What the results of `classify` depend on, for the record next to its output.

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import type { Model } from '../../../graph/model.ts';
import { systemPath } from '../../escaping.ts';
import type { Settings } from '../subcommands/classify/settings.ts';
import { modelDigest } from './model-digest.ts';
import { listed, type RunRecord } from './run-record.ts';

/** A digest of a whole file; "none" without one. */
export async function fileDigest(path: string | undefined): Promise<string> {
  if (path === undefined) return 'none';
  const hash = createHash('sha256');
  await pipeline(createReadStream(systemPath(path)), hash);
  return hash.digest('hex').slice(0, 16);
}

/** Model, noise levels and noise: what every evaluation depends on. */
export async function evaluationRecord(
  { seed, noise, loss }: Pick<Settings, 'seed' | 'noise' | 'loss'>,
  { name, inputShape, levels }: Pick<Model, 'name' | 'inputShape' | 'levels'>,
  folder: string,
): Promise<RunRecord> {
  return {
    model: name,
    'model files': await modelDigest(folder),
    images: inputShape.join('x'),
    levels: listed(
      levels.map(({ t, sigma, weight }) => `${t ?? sigma}${weight === 1 ? '' : ` times ${weight}`}`),
    ),
    loss: loss ?? "the model's own",
    seed,
    noise: await fileDigest(noise),
  };
}

/** The strategy with its options, as it would be typed. */
function strategyText({ strategy, confidence, nSamples, toKeep }: Settings): string {
  if (strategy === 'staged') return `staged ${nSamples?.join(',')} to ${toKeep?.join(',')}`;
  return strategy === 'sequential' ? `sequential, ${confidence ?? 'default'} confidence` : strategy;
}

/** The record of a run of `classify` with an opened model. */
export async function classifyRecord(settings: Settings, model: Model, folder: string): Promise<RunRecord> {
  const { purifying, budget, topK, energy, timings } = settings;
  const { noiseFile, ...purification } = purifying ?? {};
  return {
    ...(await evaluationRecord(settings, model, folder)),
    candidates: listed(
      model.candidates.map(({ label, classidx, prompt }) =>
        prompt === undefined ? label : `${classidx} ${prompt}`,
      ),
    ),
    strategy: strategyText(settings),
    budget: budget ?? 'none',
    purify: purifying ? `${JSON.stringify(purification)}, noise ${await fileDigest(noiseFile)}` : 'none',
    'top-k': topK,
    energy,
    timings,
  };
}
