// Does a network of Stable Diffusion's full size run here, in how much memory, and are its results right? Creates one
// with random f16 weights if it does not exist yet (full-size.py, which needs torch, diffusers and, for text encoders,
// transformers), loads it, evaluates it, and compares the results with PyTorch's in f32.

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { kernelShares, shareLine } from '../src/bench/kernel-shares.ts';
import { plan } from '../src/graph/core/plan.ts';
import { weightStore } from '../src/graph/core/weight-store.ts';
import { openSafetensors } from '../src/graph/node/open-safetensors.ts';
import { openDevice } from '../src/kernels/device/device.ts';
import { idle, prepare, readBack, submit } from '../src/kernels/device/runtime.ts';
import { fromChannelMajor, toChannelMajor } from '../src/kernels/device/tensor.ts';
import { NETWORKS } from './full-size-networks.ts';
import { residentMiB } from './resident.ts';
import { openBench } from './run.ts';

const TYPES = ['f32', 'f16'] as const;

const { values: options, record } = openBench('fullsize', {
  network: { type: 'string', default: 'sd1-unet', help: `the network: ${Object.keys(NETWORKS).join(', ')}` },
  folder: {
    type: 'string',
    help: 'the folder of the network, which is created if it does not exist; by default one per network in the temporary folder',
  },
  batch: { type: 'string', default: '1', help: 'samples of an evaluation' },
  size: { type: 'string', default: '1024', help: 'side of the image of an autoencoder: 768 or 1024' },
  runs: { type: 'string', default: '2', help: 'evaluations; the first one also compiles shaders' },
  weights: { type: 'string', default: 'f16', help: 'how weights are stored: f32 or f16' },
  precision: { type: 'string', default: 'f32', help: 'how activations are stored: f32 or f16' },
  launches: { type: 'boolean', default: false, help: 'list the kernels with their times' },
  python: {
    type: 'string',
    default: 'python3',
    help: 'a Python with torch, diffusers and transformers, to create the network',
  },
});
const network = NETWORKS[oneOf('network', Object.keys(NETWORKS))]!;
const folder = options.folder ?? join(tmpdir(), 'diffclass-fullsize', options.network);
if (!existsSync(join(folder, 'io.safetensors'))) {
  const script = fileURLToPath(new URL('full-size.py', import.meta.url));
  execFileSync(options.python, [script, folder, options.network], { stdio: 'inherit' });
}

const batch = Number(options.batch);
const weightDtype = oneOf('weights', TYPES);
const precision = oneOf('precision', TYPES);
const device = await openDevice();
device.gpu.addEventListener('uncapturederror', (event) => {
  throw new Error((event as GPUUncapturedErrorEvent).error.message);
});
const io = await openSafetensors(join(folder, 'io.safetensors'));
const { graph, inputs, expected, derive, transformedBytes, close } = await network({
  folder,
  io,
  batch,
  size: Number(options.size),
});

/** Returns the value of an option that is one of some names. Another value ends the process with status 2. */
function oneOf<Name extends string>(
  option: 'network' | 'weights' | 'precision',
  names: readonly Name[],
): Name {
  const given = options[option];
  const found = names.find((name) => name === given);
  if (found !== undefined) return found;
  console.error(`bench fullsize: --${option}: expected ${names.join(' or ')}, got "${given}"`);
  process.exit(2);
}

const seconds = (since: number): number => (performance.now() - since) / 1000;
const weights = weightStore(device);
const before = residentMiB('VmRSS');
const start = performance.now();
const made = await plan(device, graph, {
  weights,
  weightDtype,
  precision,
  ...(transformedBytes === undefined ? {} : { transformedBytes }),
});
await idle(device);
const loading = seconds(start);
const loadingMiB = residentMiB('VmHWM') - before;

/** Writes the same values for every sample of an input. */
async function write(name: string): Promise<void> {
  const shape = graph.inputs.get(name)!.shape;
  const [c, n, h, w] = shape;
  const each = new Float32Array(c * n * h * w);
  for (let i = 0; i < n; i++) each.set(inputs[name]!, i * c * h * w);
  const { buffer, offset } = made.inputs.get(name)!;
  device.gpu.queue.writeBuffer(buffer, offset, toChannelMajor(each, shape));
}
const times: number[] = [];
for (let run = 0; run < Number(options.runs); run++) {
  // Later values share the memory of inputs, so every run needs them written again.
  for (const name of Object.keys(inputs)) await write(name);
  const from = performance.now();
  submit(device, (pass) => made.encode(pass));
  await idle(device);
  times.push(seconds(from));
}

const mostMiB = residentMiB('VmHWM');
const outputs: Record<string, Float32Array> = {};
for (const [name, { shape }] of graph.outputs) {
  const bytes = await readBack(device, made.outputs.get(name)!);
  outputs[name] = fromChannelMajor(new Float32Array(bytes), shape);
}
Object.assign(outputs, await derive?.(outputs));
await close();

/** Compares every sample of an output with PyTorch's. */
function compared(name: string) {
  const own = expected[name]!;
  let difference = 0;
  let largest = 0;
  outputs[name]!.forEach((value, i) => {
    difference = Math.max(difference, Math.abs(value - own[i % own.length]!));
    largest = Math.max(largest, Math.abs(own[i % own.length]!));
  });
  const deviation = Math.sqrt(own.reduce((sum, value) => sum + value * value, 0) / own.length);
  return { name, difference, largest, deviation };
}
const comparisons = Object.keys(expected).map(compared);

if (options.launches) {
  const sequence = await prepare(device, made.launches);
  const launchTimes: number[] = [];
  for (const i of made.launches.keys()) {
    const from = performance.now();
    submit(device, (pass) => sequence.encode(pass, i, i + 1));
    await idle(device);
    launchTimes.push(performance.now() - from);
  }
  const names = made.launches.map(({ kernel }) => kernel.name);
  for (const share of kernelShares(names, launchTimes)) console.log(shareLine(share));
}

const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
const weightBytes = weights.bytes();
console.log(
  `${device.capabilities.description}, batch ${batch}, weights as ${weightDtype}, activations as ${precision}`,
);
console.log(`weights ${mib(weightBytes)} on the device; activations and scratch ${mib(made.bytes)}`);
// Loading also creates and clears the memory of activations, which is no part of the weights.
const activationMiB = made.bytes / 2 ** 20;
console.log(
  `loading and compiling ${loading.toFixed(1)} s; at most ${loadingMiB.toFixed(0)} MiB more resident, without activations ` +
    `${((loadingMiB - activationMiB) / (weightBytes / 2 ** 20)).toFixed(3)} of the size of the weights`,
);
console.log(`evaluations ${times.map((time) => `${time.toFixed(1)} s`).join(', ')}`);
console.log(`resident at most ${mostMiB.toFixed(0)} MiB, ${before.toFixed(0)} of them before loading`);
for (const { name, difference, largest, deviation } of comparisons)
  console.log(
    `${name}: largest difference from PyTorch in f32 ${difference.toExponential(2)}: ${(difference / largest).toExponential(2)} of the ` +
      `largest value, ${(difference / deviation).toExponential(2)} of the root mean square`,
  );
record(
  {
    network: options.network,
    batch,
    seconds: times,
    loading,
    loadingMiB,
    mostMiB,
    bytes: made.bytes,
    weightBytes,
    outputs: comparisons,
  },
  device,
);
made.destroy();
weights.destroy();
await io.close();
device.close();
