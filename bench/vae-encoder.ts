// What does encoding one image cost, in time and memory, and where does the time go?
//
//   npm run bench -- vaeencoder [options]
//
// Without --vae it uses an encoder of Stable Diffusion's shape with random weights. `--compact` transforms the weights of
// convolutions in every run instead of keeping the transformed ones, which takes less memory and more time. The processor
// time of this process divided by the number of cores is also printed; other processes disturb it little.

import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { kernelShares, shareLine } from '../src/bench/kernel-shares.ts';
import { input, newGraph, output } from '../src/graph/core/graph.ts';
import { plan } from '../src/graph/core/plan.ts';
import { weightStore } from '../src/graph/core/weight-store.ts';
import { vaeEncoder, vaeEncoderParameters } from '../src/graph/networks/vae-encoder.ts';
import { parseVaeEncoderConfig, readVaeEncoderConfig } from '../src/graph/networks/vae-encoder-config.ts';
import { fileAt } from '../src/graph/node/folder-files.ts';
import { openSafetensors } from '../src/graph/node/open-safetensors.ts';
import { FAMILIES } from '../src/kernels/device/families.ts';
import { idle, prepare, submit } from '../src/kernels/device/runtime.ts';
import { randomParameters } from './device/random-weights.ts';
import { residentMiB } from './resident.ts';
import { openBench, openFamily } from './run.ts';

const { values: options, record } = openBench('vaeencoder', {
  vae: {
    type: 'string',
    help: "the folder of an autoencoder; without it, one of Stable Diffusion's shape with random weights",
  },
  size: { type: 'string', default: '512', help: 'side of the image' },
  weights: { type: 'string', default: 'f32', help: 'how weights are stored: f32 or f16' },
  compact: {
    type: 'boolean',
    default: false,
    help: 'transform the weights of convolutions in every run, which takes less memory and more time',
  },
  family: { type: 'string', help: `family of kernels: ${FAMILIES.join(', ')}` },
  launches: { type: 'boolean', default: false, help: 'list the kernels with their times' },
});
const MIB = 2 ** 20;

const stableDiffusion = {
  block_out_channels: [128, 256, 512, 512],
  down_block_types: Array.from({ length: 4 }, () => 'DownEncoderBlock2D'),
  layers_per_block: 2,
};

const device = await openFamily(options.family);
const size = Number(options.size);
const folder = options.vae;
const config = folder
  ? await readVaeEncoderConfig(...fileAt(join(folder, 'config.json')))
  : parseVaeEncoderConfig(stableDiffusion, 'Stable Diffusion');
const file = folder ? await openSafetensors(join(folder, 'diffusion_pytorch_model.safetensors')) : undefined;
const parameters = file ? vaeEncoderParameters(file, config) : randomParameters();
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

/** Returns the seconds of one run: wall time, and processor time divided by the number of cores. */
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
  const times: number[] = [];
  for (const i of made.launches.keys())
    times.push(1000 * (await time((pass) => sequence.encode(pass, i, i + 1)))[1]);
  const names = made.launches.map(({ kernel }) => kernel.name);
  for (const share of kernelShares(names, times)) console.log(shareLine(share));
}
console.log(`${device.capabilities.description}, family ${device.capabilities.family}, ${size}x${size}`);
console.log(
  `one image ${wall.toFixed(2)} s, ${alone.toFixed(2)} s of processor time per core; loading ${loading.toFixed(1)} s, first run ${first.toFixed(1)} s`,
);
console.log(
  `activations and scratch ${(made.bytes / MIB).toFixed(0)} MiB, weights ${(weights.bytes() / MIB).toFixed(0)} MiB, at most ${residentMiB('VmHWM').toFixed(0)} MiB resident`,
);
record(
  {
    size,
    seconds: wall,
    processorSeconds: alone,
    loading,
    first,
    bytes: made.bytes,
    weightBytes: weights.bytes(),
  },
  device,
);
made.destroy();
weights.destroy();
device.close();
