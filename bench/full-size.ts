// Does a network of Stable Diffusion's full size run here, in how much memory, and are its results right? Creates one
// with random f16 weights if it does not exist yet (full-size.py, which needs torch and diffusers), loads it,
// evaluates it twice, and compares the result with PyTorch's in f32.

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { kernelShares, shareLine } from '../src/bench/kernel-shares.ts';
import { type Graph, input, newGraph, output } from '../src/graph/core/graph.ts';
import { plan } from '../src/graph/core/plan.ts';
import { weightStore } from '../src/graph/core/weight-store.ts';
import { parametersOf } from '../src/graph/files/parameters.ts';
import { timeRowLength, timeRows } from '../src/graph/networks/time-embedding.ts';
import {
  keysAndValues,
  unet2dCondition,
  unet2dConditionShared,
  unet2dConditionTensors,
} from '../src/graph/networks/unet2d-condition.ts';
import { readUNet2DConditionConfig } from '../src/graph/networks/unet2d-condition-config.ts';
import { fileAt } from '../src/graph/node/folder-files.ts';
import { openSafetensors } from '../src/graph/node/open-safetensors.ts';
import { openDevice } from '../src/kernels/device/device.ts';
import { idle, prepare, readBack, submit } from '../src/kernels/device/runtime.ts';
import { fromChannelMajor, type Shape, toChannelMajor } from '../src/kernels/device/tensor.ts';
import { residentMiB } from './resident.ts';
import { openBench } from './run.ts';

const { values: options, record } = openBench('fullsize', {
  folder: {
    type: 'string',
    default: join(tmpdir(), 'diffclass-fullsize'),
    help: 'the folder of the network, which is created if it does not exist',
  },
  batch: { type: 'string', default: '1', help: 'samples of an evaluation' },
  weights: { type: 'string', default: 'f16', help: 'how weights are stored: f32 or f16' },
  precision: { type: 'string', default: 'f32', help: 'how activations are stored: f32 or f16' },
  launches: { type: 'boolean', default: false, help: 'list the kernels with their times' },
  python: {
    type: 'string',
    default: 'python3',
    help: 'a Python with torch and diffusers, to create the network',
  },
});
const { folder } = options;
if (!existsSync(join(folder, 'io.safetensors'))) {
  const script = fileURLToPath(new URL('full-size.py', import.meta.url));
  execFileSync(options.python, [script, folder], { stdio: 'inherit' });
}

const batch = Number(options.batch);
const weightDtype = typeOf('weights');
const precision = typeOf('precision');
const device = await openDevice();
device.gpu.addEventListener('uncapturederror', (event) => {
  throw new Error((event as GPUUncapturedErrorEvent).error.message);
});
const config = await readUNet2DConditionConfig(...fileAt(join(folder, 'config.json')));
const file = await openSafetensors(join(folder, 'diffusion_pytorch_model.fp16.safetensors'));
const io = await openSafetensors(join(folder, 'io.safetensors'));
const parameters = parametersOf(file, unet2dConditionTensors(config));

/** Returns the type that an option names. Another name ends the process with status 2. */
function typeOf(name: 'weights' | 'precision'): 'f32' | 'f16' {
  const type = options[name];
  if (type === 'f32' || type === 'f16') return type;
  console.error(`bench fullsize: --${name}: expected f32 or f16, got "${type}"`);
  process.exit(2);
}

/** Returns the graph of an evaluation of `batch` samples; each shape is channel-major. */
function trace(): Graph {
  const graph = newGraph();
  const [, c, h, w] = io.tensors.get('sample')!.shape as [number, number, number, number];
  const [, tokens, dim] = io.tensors.get('context')!.shape as [number, number, number];
  const context = input(graph, 'context', [dim, batch, tokens, 1]);
  const shared = unet2dConditionShared(graph, parameters, config, {
    sample: input(graph, 'sample', [c, batch, h, w]),
    time: input(graph, 'time', [timeRowLength(config), batch, 1, 1]),
  });
  const crossAttention = (name: string, inner: number) =>
    keysAndValues(graph, parameters, { name, inner }, context);
  output(graph, 'y', unet2dCondition(graph, parameters, config, { shared, crossAttention }));
  return graph;
}

const seconds = (since: number): number => (performance.now() - since) / 1000;
const graph = trace();
const weights = weightStore(device);
const before = residentMiB('VmRSS');
const start = performance.now();
const made = await plan(device, graph, { weights, weightDtype, precision });
await idle(device);
const loading = seconds(start);
const loadingMiB = residentMiB('VmHWM') - before;
await file.close();

/** Writes the same values for every sample of an input; `values` are in the order of PyTorch. */
async function write(name: string, values: Float32Array): Promise<void> {
  const shape = graph.inputs.get(name)!.shape;
  const [c, n, h, w] = shape;
  const each = new Float32Array(c * n * h * w);
  for (let i = 0; i < n; i++) each.set(values, i * c * h * w);
  const { buffer, offset } = made.inputs.get(name)!;
  device.gpu.queue.writeBuffer(buffer, offset, toChannelMajor(each, shape));
}
const [dim, , tokens] = graph.inputs.get('context')!.shape;
const context = await io.readF32('context');
const times: number[] = [];
for (let run = 0; run < 2; run++) {
  // Later values share the memory of inputs, so every run needs them written again.
  await write('sample', await io.readF32('sample'));
  await write('time', timeRows(config, [500]));
  await write(
    'context',
    context.map((_, i) => context[(i % tokens) * dim + Math.floor(i / tokens)]!),
  );
  const from = performance.now();
  submit(device, (pass) => made.encode(pass));
  await idle(device);
  times.push(seconds(from));
}

const mostMiB = residentMiB('VmHWM');
const shape: Shape = graph.outputs.get('y')!.shape;
const range = made.outputs.get('y')!;
const y = fromChannelMajor(new Float32Array(await readBack(device, range)), shape);
const expected = await io.readF32('output');
let difference = 0;
let largest = 0;
y.forEach((value, i) => {
  difference = Math.max(difference, Math.abs(value - expected[i % expected.length]!));
  largest = Math.max(largest, Math.abs(expected[i % expected.length]!));
});
const deviation = Math.sqrt(expected.reduce((sum, value) => sum + value * value, 0) / expected.length);

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
console.log(
  `loading and compiling ${loading.toFixed(1)} s; at most ${loadingMiB.toFixed(0)} MiB more resident, ` +
    `${((loadingMiB * 2 ** 20) / weightBytes).toFixed(3)} of the size of the weights`,
);
console.log(`first evaluation ${times[0]!.toFixed(1)} s, second ${times[1]!.toFixed(1)} s`);
console.log(`resident at most ${mostMiB.toFixed(0)} MiB, ${before.toFixed(0)} of them before loading`);
console.log(
  `largest difference from PyTorch in f32 ${difference.toExponential(2)}: ${(difference / largest).toExponential(2)} of the ` +
    `largest output, ${(difference / deviation).toExponential(2)} of the standard deviation`,
);
record(
  {
    batch,
    seconds: times,
    loading,
    loadingMiB,
    mostMiB,
    bytes: made.bytes,
    weightBytes,
    difference,
    largest,
    deviation,
  },
  device,
);
made.destroy();
weights.destroy();
await io.close();
device.close();
