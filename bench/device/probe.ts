// Does the kit work on this machine? Opens the device, checks one kernel, and classifies one image with each shipped
// model.

import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { shippedModels } from '../../src/graph/node/shipped-models.ts';
import { openDevice } from '../../src/kernels/device/device.ts';
import { walk } from '../../src/kernels/device/indexing.ts';
import { defineKernel, read, write } from '../../src/kernels/device/kernel.ts';
import { createStorage, prepare, readBack, submit } from '../../src/kernels/device/runtime.ts';
import { openClassifier } from '../../src/pipeline/node/open-classifier.ts';

const COUNT = 4096;

async function checkKernel(): Promise<void> {
  const start = performance.now();
  const device = await openDevice();
  const { name, capabilities, gpu } = device;
  console.log(`device: ${name} (${capabilities.description}), family ${capabilities.family}`);
  console.log(`features: ${[...gpu.features].sort().join(' ')}`);
  const { main, uniforms, grid } = walk(capabilities, COUNT);
  const kernel = defineKernel({
    name: 'bench.probe',
    bindings: [read('x', 'f32'), write('y', 'f32')],
    uniforms,
    body: main('y[i] = x[i] * 2 + 1;'),
    grid,
  });
  const size = COUNT * 4;
  const input = Float32Array.from({ length: COUNT }, (_, i) => i);
  const x = createStorage(device, size, input);
  const y = createStorage(device, size);
  const sequence = await prepare(device, [
    { kernel, ranges: [x, y].map((buffer) => ({ buffer, offset: 0, size })) },
  ]);
  submit(device, (pass) => sequence.encode(pass));
  const values = new Float32Array(await readBack(device, { buffer: y, offset: 0, size }));
  const wrong = values.findIndex((value, i) => value !== 2 * i + 1);
  if (wrong >= 0)
    throw new Error(`kernel: expected ${2 * wrong + 1} at index ${wrong}, got ${values[wrong]}`);
  device.close();
  console.log(
    `kernel: all ${COUNT} values are right, ${Math.round(performance.now() - start)} ms including opening the device`,
  );
}

/** Classifies a model's first sample image, or a black one if it has none. */
async function classifyOne(name: string, path: string): Promise<void> {
  const start = performance.now();
  const classifier = await openClassifier(name);
  try {
    const folder = join(path, 'samples');
    const [sample] = existsSync(folder) ? readdirSync(folder).sort() : [];
    const [channels, height, width] = classifier.inputShape;
    const data = new Uint8Array(channels * height * width);
    const image = sample ? join(folder, sample) : { data, width, height, channels: channels as 1 | 3 };
    const { label } = await classifier.classify(image);
    const ms = Math.round(performance.now() - start);
    console.log(`${name}: ${sample ?? 'a black image'} is "${label}", first answer after ${ms} ms`);
  } finally {
    await classifier.close();
  }
}

export async function main(): Promise<void> {
  console.log(`node ${process.version} on ${process.platform}-${process.arch}`);
  await checkKernel();
  for (const { name, path } of await shippedModels()) await classifyOne(name, path);
}
