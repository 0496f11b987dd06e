// Records what every evaluation depends on, for the file next to an output (see run-record.ts).

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import type { ImageGeometry, Model } from '../../../graph/model.ts';
import { modelDigest } from '../../../graph/node/model-digest.ts';
import { systemPath } from '../../node/system-path.ts';
import type { Values } from '../options/table.ts';
import { listed, type RunRecord } from './run-record.ts';

/** Returns a digest of a whole file; "none" if there is no file. */
export async function fileDigest(path: string | undefined): Promise<string> {
  if (path === undefined) return 'none';
  const hash = createHash('sha256');
  await pipeline(createReadStream(systemPath(path)), hash);
  return hash.digest('hex').slice(0, 16);
}

/** Records the precision of evaluations; f32 is not recorded. */
export const precisionRecord = ({ precision }: Pick<Model, 'precision'>): RunRecord =>
  precision === 'f16' ? { precision } : {};

/** Records the size that the network is told of every image; nothing if it is told each file's own. */
export const sizeRecord = (size: ImageGeometry | undefined): RunRecord =>
  size ? { 'size conditioning': `${size.height},${size.width},${size.top},${size.left}` } : {};

/** Records what every evaluation depends on: model, noise levels and noise. */
export async function evaluationRecord(
  { seed, noise, loss }: Values<'seed' | 'noise' | 'loss'>,
  {
    name,
    inputShape,
    levels,
    precision,
    overlays,
  }: Pick<Model, 'name' | 'inputShape' | 'levels' | 'precision' | 'overlays'>,
  folder: string,
): Promise<RunRecord> {
  return {
    model: name,
    'model files': await modelDigest(folder),
    ...overlays,
    images: inputShape.join('x'),
    levels: listed(
      levels.map(({ t, sigma, weight }) => `${t ?? sigma}${weight === 1 ? '' : ` times ${weight}`}`),
    ),
    loss: loss ?? "the model's own",
    seed,
    noise: await fileDigest(noise),
    ...precisionRecord({ precision }),
  };
}
