// The network of a pixel model: a UNet2DModel with the tables that its levels and classes need.

import { ModelError } from '../../../errors.ts';
import type { Graph } from '../../core/graph.ts';
import type { Network } from '../../evaluation/evaluation.ts';
import { multiHead } from '../../evaluation/multi-head.ts';
import type { Files } from '../../files/files.ts';
import { parametersOf } from '../../files/parameters.ts';
import type { TensorFile } from '../../files/safetensors.ts';
import type { Level } from '../../model.ts';
import { lookUp } from '../../networks/layers.ts';
import { timeRows, timeTable } from '../../networks/time-embedding.ts';
import { unet2d, unet2dTensors } from '../../networks/unet2d.ts';
import type { UNet2DConfig } from '../../networks/unet2d-config.ts';
import { table, type Value } from '../../ops/value.ts';

/** What the network is built from. */
export interface PixelNetworkConfig {
  readonly files: Files;
  readonly unet: UNet2DConfig;
  /** The name of every class, in the order of their numbers; empty for a model without classes. */
  readonly labels: readonly string[];
  /**
   * Outputs of a multi-head model: one per class, and perhaps one more that is unconditional. Undefined for a network that
   * is conditioned on a class.
   */
  readonly heads?: number | undefined;
}

/** Builds the network. @throws ModelError if the file does not hold its tensors, or it cannot choose between classes. */
export async function pixelNetwork(
  { files, unet, labels, heads }: PixelNetworkConfig,
  file: TensorFile,
  levels: readonly Level[],
): Promise<Network> {
  if (unet.classEmbedding === 'identity')
    throw new ModelError(
      `${files.describe('')}: class_embed_type identity takes vectors, not classes; there is nothing to choose from`,
    );
  const [height, width] = unet.sampleSize!;
  const parameters = parametersOf(file, unet2dTensors(unet));
  const frequencies =
    unet.timeEmbeddingType === 'fourier' ? await file.readF32('time_proj.weight') : undefined;
  const times = timeTable(unet, levels, frequencies);
  const classNumbers = labels.map((_, i) => i);
  const classRows =
    unet.classEmbedding === 'timestep'
      ? table('label rows', timeRows(unet, classNumbers, frequencies))
      : undefined;
  const centre = table(
    'centre',
    Float32Array.from({ length: levels.length * 2 * unet.inChannels }, (_, i) =>
      i % (2 * unet.inChannels) < unet.inChannels ? 2 : -1,
    ),
  );
  const image = [unet.inChannels, height, width] as const;
  const run = (graph: Graph, sample: Value, level: Value, label?: Value): Value => {
    const classInput =
      label && classRows
        ? lookUp(graph, classRows, labels.length, label)
        : unet.classEmbedding === 'none'
          ? undefined
          : label;
    return unet2d(graph, parameters, unet, {
      sample,
      time: lookUp(graph, times, levels.length, level),
      ...(classInput && { label: classInput }),
      ...(unet.centerInputSample ? { centre: lookUp(graph, centre, levels.length, level) } : {}),
    });
  };
  if (heads === undefined)
    return { image, predict: (graph, { xt, level, label }) => run(graph, xt, level, label) };
  return multiHead(image, run);
}
