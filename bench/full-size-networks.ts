// The networks of the benchmark `fullsize`: the graph of each, its inputs, and what PyTorch computed for them.

import { type Graph, input, newGraph, output } from '../src/graph/core/graph.ts';
import { parametersOf } from '../src/graph/files/parameters.ts';
import { openTensorFile, type TensorFile } from '../src/graph/files/safetensors.ts';
import { findWeights } from '../src/graph/folders/weights.ts';
import {
  clipText,
  clipTextTensors,
  embedTokens,
  projectTexts,
  withoutBuffers,
} from '../src/graph/networks/clip-text.ts';
import { readClipTextConfig } from '../src/graph/networks/clip-text-config.ts';
import { sizeRow, timeRowLength, timeRows } from '../src/graph/networks/time-embedding.ts';
import {
  keysAndValues,
  unet2dCondition,
  unet2dConditionShared,
  unet2dConditionTensors,
} from '../src/graph/networks/unet2d-condition.ts';
import { readUNet2DConditionConfig } from '../src/graph/networks/unet2d-condition-config.ts';
import { vaeEncoder, vaeEncoderParameters } from '../src/graph/networks/vae-encoder.ts';
import { readVaeEncoderConfig } from '../src/graph/networks/vae-encoder-config.ts';
import { folderFiles } from '../src/graph/node/folder-files.ts';
import { fromChannelMajor, type Shape } from '../src/kernels/device/tensor.ts';

type Values = Readonly<Record<string, Float32Array>>;

/** A network that is ready to be planned. Values are those of one sample, [c, h, w]. */
interface FullSizeNetwork {
  readonly graph: Graph;
  readonly inputs: Values;
  /** What the outputs should be, by name. */
  readonly expected: Values;
  /** Computes further results from the outputs, on the host. */
  readonly derive?: (outputs: Values) => Promise<Values>;
  /** See `PlanOptions.transformedBytes`; as the models of this network are planned. */
  readonly transformedBytes?: number;
  /** Closes the file of the weights, which are read when the graph is planned. */
  readonly close: () => Promise<void>;
}

interface Request {
  /** The folder that full-size.py made. */
  readonly folder: string;
  /** Its inputs and outputs. */
  readonly io: TensorFile;
  readonly batch: number;
  /** The side of the image, for an autoencoder. */
  readonly size: number;
}

/** Transposes rows of `width` values to columns. */
const transposed = (values: Float32Array, width: number): Float32Array => {
  const rows = values.length / width;
  return values.map((_, i) => values[(i % rows) * width + Math.floor(i / rows)]!);
};

const weightsIn = async (folder: string, stem: string): Promise<TensorFile> => {
  const files = folderFiles(folder);
  return openTensorFile(files, await findWeights(files, '', stem));
};

async function unet({ folder, io, batch }: Request): Promise<FullSizeNetwork> {
  const config = await readUNet2DConditionConfig(folderFiles(folder), 'config.json');
  const file = await weightsIn(folder, 'diffusion_pytorch_model');
  const parameters = parametersOf(file, unet2dConditionTensors(config));
  const graph = newGraph();
  const [, c, h, w] = io.tensors.get('sample')!.shape as [number, number, number, number];
  const [, tokens, dim] = io.tensors.get('context')!.shape as [number, number, number];
  const inputs: Record<string, Float32Array> = {
    sample: await io.readF32('sample'),
    time: timeRows(config, [500]),
    context: transposed(await io.readF32('context'), dim),
  };
  const { addedEmbedding } = config;
  if (addedEmbedding) {
    inputs.pooled = await io.readF32('pooled');
    inputs.size = sizeRow(config, addedEmbedding.sizeDim, [...(await io.readF32('size'))]);
  }
  const row = (name: string) => input(graph, name, [inputs[name]!.length, batch, 1, 1]);
  const context = input(graph, 'context', [dim, batch, tokens, 1]);
  const shared = unet2dConditionShared(graph, parameters, config, {
    sample: input(graph, 'sample', [c, batch, h, w]),
    time: input(graph, 'time', [timeRowLength(config), batch, 1, 1]),
  });
  const crossAttention = (name: string, inner: number) =>
    keysAndValues(graph, parameters, { name, inner }, context);
  const added = addedEmbedding && { pooled: row('pooled'), size: row('size') };
  output(graph, 'output', unet2dCondition(graph, parameters, config, { shared, crossAttention, added }));
  const expected = { output: await io.readF32('output') };
  return { graph, inputs, expected, close: () => file.close() };
}

async function clip({ folder, io, batch }: Request): Promise<FullSizeNetwork> {
  const config = await readClipTextConfig(folderFiles(folder), 'config.json');
  const file = withoutBuffers(await weightsIn(folder, 'model'));
  const parameters = parametersOf(file, clipTextTensors(config));
  const ids = Int32Array.from(new BigInt64Array((await io.read('ids')).slice().buffer), Number);
  const { hiddenSize, projectionDim } = config;
  const one: Shape = [hiddenSize, 1, ids.length, 1];
  const graph = newGraph();
  const x = input(graph, 'x', [hiddenSize, batch, ids.length, 1]);
  const states = clipText(graph, parameters, config, x);
  output(graph, 'last', states.last);
  output(graph, 'penultimate', states.penultimate);
  const end = ids.indexOf(49407);
  const vector = async ({ last }: Values) => {
    const row = Float32Array.from({ length: hiddenSize }, (_, i) => last![i * ids.length + end]!);
    return { pooled: await projectTexts(file, config, row) };
  };
  return {
    graph,
    inputs: { x: fromChannelMajor(await embedTokens(file, config, [ids]), one) },
    expected: {
      last: transposed(await io.readF32('last'), hiddenSize),
      penultimate: transposed(await io.readF32('penultimate'), hiddenSize),
      ...(projectionDim === undefined ? {} : { pooled: await io.readF32('pooled') }),
    },
    ...(projectionDim === undefined ? {} : { derive: vector }),
    close: () => file.close(),
  };
}

async function vae({ folder, io, batch, size }: Request): Promise<FullSizeNetwork> {
  const config = await readVaeEncoderConfig(folderFiles(folder), 'config.json');
  const file = await weightsIn(folder, 'diffusion_pytorch_model');
  const graph = newGraph();
  const image = input(graph, 'image', [3, batch, size, size]);
  output(graph, 'latent', vaeEncoder(graph, vaeEncoderParameters(file, config), config, image));
  return {
    graph,
    inputs: { image: await io.readF32(`image${size}`) },
    expected: { latent: await io.readF32(`latent${size}`) },
    transformedBytes: 0,
    close: () => file.close(),
  };
}

/** How each network is opened, by its name for full-size.py. */
export const NETWORKS: Readonly<Record<string, (request: Request) => Promise<FullSizeNetwork>>> = {
  'sd1-unet': unet,
  'xl-unet': unet,
  'clip-l': clip,
  'clip-bigg': clip,
  vae,
};
