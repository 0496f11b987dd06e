// A DiT folder as a network of classes: a class-conditional transformer over the latents of its autoencoder.

import { apply } from '../../core/graph.ts';
import type { Network } from '../../evaluation/evaluation.ts';
import { parametersOf } from '../../files/parameters.ts';
import type { TensorFile } from '../../files/safetensors.ts';
import type { TransformerFolder } from '../../models/families.ts';
import type { Level } from '../../model.ts';
import { dit, ditTensors } from '../../networks/dit.ts';
import { TIME_ROW, timeRows } from '../../networks/time-embedding.ts';

/**
 * The transformer of a folder as a network: its weights are read from the file when a plan first wants them. Every
 * block is modulated by the class, so candidates share nothing.
 * @throws ModelError where the file does not hold the network's tensors.
 */
export function transformerNetwork(
  { transformer }: TransformerFolder,
  file: TensorFile,
  levels: readonly Level[],
): Network {
  const parameters = parametersOf(file, ditTensors(transformer));
  const rows = timeRows(
    TIME_ROW,
    levels.map(({ t }) => t!),
  );
  const table = { name: 'time rows', length: rows.length, values: async () => rows };
  const entries = levels.length;
  const channels = rows.length / entries;
  return {
    image: [transformer.inChannels, transformer.sampleSize, transformer.sampleSize],
    predict(graph, { xt: sample, level, label }) {
      const time = apply(graph, 'gather', { entries, channels }, { index: level }, { table });
      return dit(graph, parameters, transformer, { sample, time, label });
    },
  };
}
