// Whole UNets against diffusers: random weights, small sizes (test/golden/make.py made them).

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parametersOf } from '../../../src/graph/files/parameters.ts';
import { openSafetensors, type TensorFile } from '../../../src/graph/files/safetensors.ts';
import { apply, input, newGraph, output } from '../../../src/graph/graph.ts';
import { timeRowLength, timeRows } from '../../../src/graph/networks/timeembedding.ts';
import { unet2d } from '../../../src/graph/networks/unet2d.ts';
import { readUNet2DConfig } from '../../../src/graph/networks/unet2d-config.ts';
import { unet2dTensors } from '../../../src/graph/networks/unet2d-tensors.ts';
import { plan } from '../../../src/graph/plan.ts';
import { weightStore } from '../../../src/graph/weightstore.ts';
import { idle, readBack, submit } from '../../../src/kernels/runtime.ts';
import { fromChannelMajor, type Shape, toChannelMajor } from '../../../src/kernels/tensor.ts';
import { maxDifference, testDevice } from '../../kernels/harness.ts';

const goldens = join(import.meta.dirname, '..', '..', 'golden');
const refused = new Set(['fourier-skip']);
const names = readdirSync(goldens)
  .filter((name) => name.startsWith('unet2d-') && !name.includes('.'))
  .map((name) => name.slice('unet2d-'.length))
  .filter((name) => !refused.has(name));

async function numbers(file: TensorFile, name: string): Promise<number[]> {
  const info = file.tensors.get(name);
  if (info?.dtype !== 'I64') return [...(await file.readF32(name))];
  const bytes = await file.read(name);
  return [...new BigInt64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8)].map(Number);
}

/** Runs a golden's network on the device and returns its output [n, c, h, w] with what was wanted. */
async function run(name: string, family?: 'plain' | 'tile') {
  const folder = join(goldens, `unet2d-${name}`);
  const config = await readUNet2DConfig(join(folder, 'unet', 'config.json'));
  const weights = await openSafetensors(join(folder, 'unet', 'diffusion_pytorch_model.safetensors'));
  const io = await openSafetensors(join(folder, 'io.safetensors'));
  const device = await testDevice(family ? { family } : {});
  const frequencies =
    config.timeEmbeddingType === 'fourier' ? await weights.readF32('time_proj.weight') : undefined;

  const [n, c, h, w] = io.tensors.get('sample')!.shape as [number, number, number, number];
  const timesteps = await numbers(io, 'timestep');
  const labels = io.tensors.has('class_labels') ? await numbers(io, 'class_labels') : undefined;
  const width = timeRowLength(config);
  const rowsShape: Shape = [width, n, 1, 1];
  const data = new Map<string, Float32Array | Uint32Array>();

  const graph = newGraph();
  const sample = input(graph, 'sample', [c, n, h, w]);
  data.set('sample', toChannelMajor(await io.readF32('sample'), [c, n, h, w]));
  const time = input(graph, 'time', rowsShape);
  data.set('time', toChannelMajor(timeRows(config, timesteps, frequencies), rowsShape));
  let label: ReturnType<typeof input> | undefined;
  if (labels && config.classEmbedding === 'table') {
    label = input(graph, 'label', [1, n, 1, 1]);
    data.set('label', Uint32Array.from(labels));
  } else if (labels) {
    const identity = config.classEmbedding === 'identity';
    const shape: Shape = identity ? [config.timeEmbeddingDim, n, 1, 1] : rowsShape;
    label = input(graph, 'label', shape);
    data.set('label', toChannelMajor(identity ? labels : timeRows(config, labels, frequencies), shape));
  }
  let centre: ReturnType<typeof input> | undefined;
  if (config.centerInputSample) {
    centre = input(graph, 'centre', [2 * c, n, 1, 1]);
    const rows = Float32Array.from({ length: 2 * c * n }, (_, i) => (i % (2 * c) < c ? 2 : -1));
    data.set('centre', toChannelMajor(rows, [2 * c, n, 1, 1]));
  }
  const parameters = parametersOf(weights, unet2dTensors(config));
  const y = unet2d(graph, parameters, config, {
    sample,
    time,
    ...(label && { label }),
    ...(centre && { centre }),
  });
  output(graph, 'y', y);
  const store = weightStore(device);
  const made = await plan(device, graph, { weights: store, weightDtype: 'f32' });
  for (const [key, values] of data) {
    const { buffer, offset } = made.inputs.get(key)!;
    device.gpu.queue.writeBuffer(buffer, offset, values as Float32Array<ArrayBuffer>);
  }
  submit(device, (pass) => made.encode(pass));
  await idle(device);
  const bytes = await readBack(device, made.outputs.get('y')!);
  const got = fromChannelMajor(new Float32Array(bytes), y.shape);
  if (config.timeEmbeddingType === 'fourier') {
    const each = got.length / n;
    for (let i = 0; i < got.length; i++) got[i] = got[i]! / timesteps[Math.floor(i / each)]!;
  }
  const want = await io.readF32('output');
  made.destroy();
  store.destroy();
  await Promise.all([weights.close(), io.close()]);
  return { got, want };
}

describe('unet2d equals diffusers', () => {
  for (const family of [undefined, 'plain', 'tile'] as const)
    it.each(names)(`%s, family ${family ?? 'of the device'}`, async (name) => {
      const { got, want } = await run(name, family);
      const scale = Math.max(...want.map(Math.abs));
      expect(maxDifference(got, want).difference / scale).toBeLessThan(2e-5);
    });
});

describe('a graph that does not fit', () => {
  it('is refused as it is built, naming the op and both numbers', () => {
    const graph = newGraph();
    const x = input(graph, 'x', [8, 1, 4, 4]);
    const weight = { name: 'w', length: 4 * 4 * 9, values: async () => new Float32Array(144) };
    const attributes = { outChannels: 4, kernel: [3, 3], stride: 1, padding: [1, 1, 1, 1] } as const;
    expect(() => apply(graph, 'conv2d', attributes, { x }, { weight })).toThrow(
      /conv2d: w holds 144 values, weight wants 288/,
    );
  });
});
