// What does encoding one image cost, in time and memory, and where does the time go?
//
//   npm run bench -- vaeencoder [--vae DIR] [--size 512] [--weights f16] [--compact] [--family plain] [--launches]
//
// Without a folder: an encoder of Stable Diffusion's shape with random weights. `--compact` transforms the weights of
// convolutions for every run instead of keeping them so, which is less memory and more time. On a software adapter times are
// also given by this process's processor time over the cores, which other processes disturb little.

import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { input, newGraph, output } from '../src/graph/core/graph.ts';
import { plan } from '../src/graph/core/plan.ts';
import { weightStore } from '../src/graph/core/weight-store.ts';
import { lengthOf } from '../src/graph/files/expected-tensors.ts';
import type { Parameters } from '../src/graph/files/parameters.ts';
import { vaeEncoder, vaeEncoderParameters } from '../src/graph/networks/vae-encoder.ts';
import { parseVaeEncoderConfig, readVaeEncoderConfig } from '../src/graph/networks/vae-encoder-config.ts';
import { fileAt } from '../src/graph/node/folder-files.ts';
import { openSafetensors } from '../src/graph/node/open-safetensors.ts';
import { type Family, openDevice } from '../src/kernels/device/device.ts';
import { idle, prepare, submit } from '../src/kernels/device/runtime.ts';
import { randomUniform } from './random.ts';

const { values: options } = parseArgs({
  options: {
    vae: { type: 'string' },
    size: { type: 'string', default: '512' },
    weights: { type: 'string', default: 'f32' },
    compact: { type: 'boolean', default: false },
    family: { type: 'string' },
    launches: { type: 'boolean', default: false },
  },
});
const MIB = 2 ** 20;

/** Weights of a variance that keeps activations of about size 1; norms of 1. */
const randomParameters: Parameters = (name, shape) => {
  const length = lengthOf(shape);
  const values = async (): Promise<Float32Array> => {
    if (shape.length === 1) return new Float32Array(length).fill(name.endsWith('weight') ? 1 : 0);
    const bound = Math.sqrt((3 * shape[0]!) / length);
    const random = randomUniform(1);
    return Float32Array.from({ length }, () => bound * (2 * random() - 1));
  };
  return { name, length, values };
};

const stableDiffusion = {
  block_out_channels: [128, 256, 512, 512],
  down_block_types: Array.from({ length: 4 }, () => 'DownEncoderBlock2D'),
  layers_per_block: 2,
};

/** The most memory that this process has had resident, where the system says. */
function peakMiB(): string {
  try {
    const kib = /VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
    return kib === undefined ? 'unknown' : (Number(kib) / 1024).toFixed(0);
  } catch {
    return 'unknown';
  }
}

const device = await openDevice(options.family ? { family: options.family as Family } : {});
const size = Number(options.size);
const folder = options.vae;
const config = folder
  ? await readVaeEncoderConfig(...fileAt(join(folder, 'config.json')))
  : parseVaeEncoderConfig(stableDiffusion, 'Stable Diffusion');
const file = folder ? await openSafetensors(join(folder, 'diffusion_pytorch_model.safetensors')) : undefined;
const parameters = file ? vaeEncoderParameters(file, config) : randomParameters;
const graph = newGraph();
output(graph, 'latent', vaeEncoder(graph, parameters, config, input(graph, 'image', [3, 1, size, size])));
const weights = weightStore(device);
const began = performance.now();
const made = await plan(device, graph, {
  weights,
  weightDtype: options.weights === 'f16' ? 'f16' : 'f32',
  ...(options.compact ? { transformedBytes: 0 } : {}),
});
await file?.close();
const loading = (performance.now() - began) / 1000;

/** Seconds of one run, by the clock and by this process's share of the cores. */
async function time(encode: (pass: GPUComputePassEncoder) => void): Promise<readonly [number, number]> {
  const [start, before] = [performance.now(), process.cpuUsage()];
  submit(device, encode);
  await idle(device);
  const { user, system } = process.cpuUsage(before);
  return [(performance.now() - start) / 1000, (user + system) / 1e6 / availableParallelism()];
}

const [first] = await time(made.encode);
const [wall, alone] = await time(made.encode);
if (options.launches) {
  const sequence = await prepare(device, made.launches);
  const byName = new Map<string, { seconds: number; count: number }>();
  for (const [i, { kernel }] of made.launches.entries()) {
    const [, seconds] = await time((pass) => sequence.encode(pass, i, i + 1));
    const before = byName.get(kernel.name) ?? { seconds: 0, count: 0 };
    byName.set(kernel.name, { seconds: before.seconds + seconds, count: before.count + 1 });
  }
  for (const [name, { seconds, count }] of [...byName].sort(([, a], [, b]) => b.seconds - a.seconds))
    console.log(`${name.padEnd(56)} ${String(count).padStart(4)} ${seconds.toFixed(3).padStart(9)} s`);
}
console.log(`${device.capabilities.description}, family ${device.capabilities.family}, ${size}x${size}`);
console.log(
  `one image ${wall.toFixed(2)} s, ${alone.toFixed(2)} s by processor time; loading ${loading.toFixed(1)} s, first run ${first.toFixed(1)} s`,
);
console.log(
  `activations and scratch ${(made.bytes / MIB).toFixed(0)} MiB, weights ${(weights.bytes() / MIB).toFixed(0)} MiB, peak of the process ${peakMiB()} MiB`,
);
made.destroy();
weights.destroy();
device.close();
