// Does a network of Stable Diffusion's full size run here, in how much memory, and right? One with random f16 weights
// is made once (full-size.py: torch and diffusers), loaded, evaluated twice, and compared with PyTorch's f32.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
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
import type { WeightDtype } from '../src/kernels/device/routine.ts';
import { idle, prepare, readBack, submit } from '../src/kernels/device/runtime.ts';
import { fromChannelMajor, type Shape, toChannelMajor } from '../src/kernels/device/tensor.ts';

const { values: options } = parseArgs({
  options: {
    /** Where the network lies, or is made where there is none. */
    folder: { type: 'string', default: join(tmpdir(), 'diffclass-fullsize') },
    batch: { type: 'string', default: '1' },
    weights: { type: 'string', default: 'f16' },
    launches: { type: 'boolean', default: false },
    python: { type: 'string', default: 'python3' },
  },
});
const { folder } = options;
if (!existsSync(join(folder, 'io.safetensors'))) {
  const script = fileURLToPath(new URL('full-size.py', import.meta.url));
  execFileSync(options.python, [script, folder], { stdio: 'inherit' });
}

/** Resident memory of this process, now and at most, in MiB (Linux). */
function resident(): { now: number; most: number } {
  const status = readFileSync('/proc/self/status', 'utf8');
  const mib = (key: string) => Number(new RegExp(`${key}:\\s+(\\d+)`).exec(status)?.[1]) / 1024;
  return { now: mib('VmRSS'), most: mib('VmHWM') };
}

const batch = Number(options.batch);
const weightDtype = options.weights as WeightDtype;
const device = await openDevice();
device.gpu.addEventListener('uncapturederror', (event) => {
  throw new Error((event as GPUUncapturedErrorEvent).error.message);
});
const config = await readUNet2DConditionConfig(...fileAt(join(folder, 'config.json')));
const file = await openSafetensors(join(folder, 'diffusion_pytorch_model.fp16.safetensors'));
const io = await openSafetensors(join(folder, 'io.safetensors'));
const parameters = parametersOf(file, unet2dConditionTensors(config));

/** The evaluation of `batch` samples; each shape is channel-major. */
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
const opened = resident();
const start = performance.now();
const made = await plan(device, graph, { weights, weightDtype });
await idle(device);
const loading = seconds(start);
const loaded = resident();
await file.close();

/** The same values for every sample, in the order of PyTorch. */
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
  // Inputs share memory with what comes after them, so that they are written for every run.
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
const done = resident();

const shape: Shape = graph.outputs.get('y')!.shape;
const range = made.outputs.get('y')!;
const y = fromChannelMajor(new Float32Array(await readBack(device, range)), shape);
const want = await io.readF32('output');
let difference = 0;
let largest = 0;
y.forEach((value, i) => {
  const wanted = want[i % want.length]!;
  difference = Math.max(difference, Math.abs(value - wanted));
  largest = Math.max(largest, Math.abs(wanted));
});
const deviation = Math.sqrt(want.reduce((sum, value) => sum + value * value, 0) / want.length);

if (options.launches) {
  const sequence = await prepare(device, made.launches);
  const byName = new Map<string, { s: number; count: number }>();
  for (const [i, { kernel }] of made.launches.entries()) {
    const from = performance.now();
    submit(device, (pass) => sequence.encode(pass, i, i + 1));
    await idle(device);
    const { s, count } = byName.get(kernel.name) ?? { s: 0, count: 0 };
    byName.set(kernel.name, { s: s + seconds(from), count: count + 1 });
  }
  for (const [name, { s, count }] of [...byName].sort(([, a], [, b]) => b.s - a.s))
    console.log(`${name.padEnd(56)} ${String(count).padStart(4)} ${s.toFixed(2).padStart(8)} s`);
}

const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
const weightBytes = weights.bytes();
console.log(`${device.capabilities.description}, batch ${batch}, weights as ${weightDtype}`);
console.log(`weights ${mib(weightBytes)} on the device; activations and scratch ${mib(made.bytes)}`);
console.log(
  `loading and compiling ${loading.toFixed(1)} s; at most ${(loaded.most - opened.now).toFixed(0)} MiB more resident, ` +
    `${(((loaded.most - opened.now) * 2 ** 20) / weightBytes).toFixed(3)} of the weights`,
);
console.log(`first evaluation ${times[0]!.toFixed(1)} s, second ${times[1]!.toFixed(1)} s`);
console.log(`resident at most ${done.most.toFixed(0)} MiB, ${opened.now.toFixed(0)} of them before loading`);
console.log(
  `largest difference from PyTorch in f32 ${difference.toExponential(2)}: ${(difference / largest).toExponential(2)} of the ` +
    `largest output, ${(difference / deviation).toExponential(2)} of the standard deviation`,
);
made.destroy();
weights.destroy();
await io.close();
device.close();
