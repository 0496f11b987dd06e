// Reads the UNets of test/golden/make.py as graphs, with their inputs.

import { join } from 'node:path';
import { type Graph, input, newGraph } from '../../../src/graph/core/graph.ts';
import { parametersOf } from '../../../src/graph/files/parameters.ts';
import type { TensorFile } from '../../../src/graph/files/safetensors.ts';
import { timeRowLength, timeRows } from '../../../src/graph/networks/time-embedding.ts';
import { unet2d, unet2dTensors } from '../../../src/graph/networks/unet2d.ts';
import { readUNet2DConfig } from '../../../src/graph/networks/unet2d-config.ts';
import { fileAt } from '../../../src/graph/node/folder-files.ts';
import { openSafetensors } from '../../../src/graph/node/open-safetensors.ts';
import type { Value } from '../../../src/graph/ops/value.ts';
import type { Shape } from '../../../src/kernels/device/tensor.ts';

export const goldens = join(import.meta.dirname, '..', '..', 'golden');

export interface GoldenUNet {
  readonly graph: Graph;
  readonly sample: Value;
  readonly y: Value;
  /** Values by the names of the graph's inputs, in [n, c, h, w] order. */
  readonly inputs: Readonly<Record<string, ArrayLike<number>>>;
  /** The number by which diffusers divides each sample's output. */
  readonly divisors: readonly number[];
  readonly io: TensorFile;
  readonly weights: TensorFile;
  close(): Promise<unknown>;
}

async function numbers(file: TensorFile, name: string): Promise<number[]> {
  const info = file.tensors.get(name);
  if (info?.dtype !== 'I64') return [...(await file.readF32(name))];
  const bytes = await file.read(name);
  return [...new BigInt64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8)].map(Number);
}

/** Returns the network unet2d-NAME and the inputs in its io.safetensors. Call `close` after running it. */
export async function goldenUNet(name: string): Promise<GoldenUNet> {
  const folder = join(goldens, `unet2d-${name}`);
  const config = await readUNet2DConfig(...fileAt(join(folder, 'unet', 'config.json')));
  const weights = await openSafetensors(join(folder, 'unet', 'diffusion_pytorch_model.safetensors'));
  const io = await openSafetensors(join(folder, 'io.safetensors'));
  const fourier = config.timeEmbeddingType === 'fourier';
  const frequencies = fourier ? await weights.readF32('time_proj.weight') : undefined;

  const [n, c, h, w] = io.tensors.get('sample')!.shape as [number, number, number, number];
  const timesteps = await numbers(io, 'timestep');
  const labels = io.tensors.has('class_labels') ? await numbers(io, 'class_labels') : undefined;
  const rowsShape: Shape = [timeRowLength(config), n, 1, 1];
  const inputs: Record<string, ArrayLike<number>> = {};
  const graph = newGraph();
  const addInput = (key: string, shape: Shape, values: ArrayLike<number>): Value => {
    inputs[key] = values;
    return input(graph, key, shape);
  };

  const sample = addInput('sample', [c, n, h, w], await io.readF32('sample'));
  const time = addInput('time', rowsShape, timeRows(config, timesteps, frequencies));
  let label: Value | undefined;
  if (labels && config.classEmbedding === 'table')
    label = addInput('label', [1, n, 1, 1], Uint32Array.from(labels));
  else if (labels && config.classEmbedding === 'identity')
    label = addInput('label', [config.timeEmbeddingDim, n, 1, 1], labels);
  else if (labels) label = addInput('label', rowsShape, timeRows(config, labels, frequencies));
  const centring = Float32Array.from({ length: 2 * c * n }, (_, i) => (i % (2 * c) < c ? 2 : -1));
  const centre = config.centerInputSample ? addInput('centre', [2 * c, n, 1, 1], centring) : undefined;
  const y = unet2d(graph, parametersOf(weights, unet2dTensors(config)), config, {
    sample,
    time,
    ...(label && { label }),
    ...(centre && { centre }),
  });
  const divisors = timesteps.map((t) => (fourier ? t : 1));
  const close = () => Promise.all([weights.close(), io.close()]);
  return { graph, sample, y, inputs, divisors, io, weights, close };
}
