// A diffusers pixel model (UNet2DModel and a schedule of timesteps) as a network that can be evaluated.

import { ModelError, UnsupportedError } from '../../../errors.ts';
import { apply, type Graph } from '../../core/graph.ts';
import type { Network } from '../../evaluation/evaluation.ts';
import { multiHead } from '../../evaluation/multi-head.ts';
import { parametersOf } from '../../files/parameters.ts';
import type { TensorFile } from '../../files/safetensors.ts';
import type { PixelModelFolder } from '../../models/families.ts';
import type { Level } from '../../model.ts';
import { timeRowLength, timeRows } from '../../networks/time-embedding.ts';
import { unet2d, unet2dTensors } from '../../networks/unet2d.ts';
import type { Constant, Value } from '../../ops/value.ts';

/**
 * The UNet of a folder as a network: its weights are read from the file when a plan first wants them.
 * @throws ModelError where the file does not hold the network's tensors.
 */
export async function pixelNetwork(
  folder: PixelModelFolder,
  file: TensorFile,
  levels: readonly Level[],
): Promise<Network> {
  const { unet, labels, heads } = folder;
  if (unet.classEmbedding === 'identity')
    throw new ModelError(
      `${folder.files.describe('')}: class_embed_type identity takes vectors, not classes; there is nothing to choose from`,
    );
  const [height, width] = unet.sampleSize!;
  const parameters = parametersOf(file, unet2dTensors(unet));
  const frequencies =
    unet.timeEmbeddingType === 'fourier' ? await file.readF32('time_proj.weight') : undefined;
  const channels = timeRowLength(unet);
  const rows = (name: string, times: readonly number[]): Constant => {
    const values = timeRows(unet, times, frequencies);
    return { name, length: values.length, values: async () => values };
  };
  const table = rows(
    'time rows',
    levels.map(({ t }) => t!),
  );
  const labelTable =
    unet.classEmbedding === 'timestep'
      ? rows(
          'label rows',
          labels.map((_, i) => i),
        )
      : undefined;
  const centre = Float32Array.from({ length: levels.length * 2 * unet.inChannels }, (_, i) =>
    i % (2 * unet.inChannels) < unet.inChannels ? 2 : -1,
  );
  const image = [unet.inChannels, height, width] as const;
  const run = (graph: Graph, sample: Value, level: Value, label?: Value): Value => {
    const pick = (index: Value, entries: number, width: number, constant: Constant) =>
      apply(graph, 'gather', { entries, channels: width }, { index }, { table: constant });
    const centring = { name: 'centre', length: centre.length, values: async () => centre };
    const told =
      label && labelTable
        ? pick(label, labels.length, channels, labelTable)
        : unet.classEmbedding === 'none'
          ? undefined
          : label;
    return unet2d(graph, parameters, unet, {
      sample,
      time: pick(level, levels.length, channels, table),
      ...(told && { label: told }),
      ...(unet.centerInputSample
        ? { centre: pick(level, levels.length, 2 * unet.inChannels, centring) }
        : {}),
    });
  };
  if (heads === undefined)
    return { image, predict: (graph, { xt, level, label }) => run(graph, xt, level, label) };
  return multiHead(image, run);
}

/** What the network's output is multiplied by. @throws UnsupportedError at a timestep that it does not have. */
export function outputScale({ unet, files }: PixelModelFolder, t: number): number {
  if (unet.timeEmbeddingType !== 'fourier') return 1;
  if (t === 0) throw new UnsupportedError(`${files.name}: its fourier time embedding has no timestep 0`);
  return 1 / t;
}
