// How long do the gradients of a convolution take, compared with the convolution itself?
//
//   npm run bench -- backward [--match 28x28] [--family plain] [--repetitions 7] [--json FILE]
//
// Three plans per case run in turn: y; dx, of however many nodes; and dW. Their speeds are relative to the forward pass:
// all three do the same number of operations by definition.

import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { differentiate } from '../src/graph/core/gradient.ts';
import { apply, input, newGraph, output } from '../src/graph/core/graph.ts';
import { plan } from '../src/graph/core/plan.ts';
import { weightStore } from '../src/graph/core/weight-store.ts';
import type { Constant } from '../src/graph/ops/value.ts';
import { type Conv2dOptions, outputSize } from '../src/kernels/conv2d/conv2d.ts';
import { type Device, type Family, openDevice } from '../src/kernels/device/device.ts';
import { type Timing, time } from '../src/kernels/device/time.ts';
import { benchCases } from '../test/kernels/cases/conv2d-backward.ts';

const { values: options } = parseArgs({
  options: {
    match: { type: 'string', default: '' },
    family: { type: 'string' },
    repetitions: { type: 'string', default: '7' },
    json: { type: 'string' },
  },
});

type Result = 'y' | 'dx' | 'dW';

const noise = (name: string, length: number): Constant => ({
  name,
  length,
  values: async () => Float32Array.from({ length }, (_, i) => Math.sin(7 * i) / 8),
});

/** Returns a graph whose only output is `result`. */
function graphOf(
  result: Result,
  { x: shape, outChannels, kernel, stride = 1, padding = [0, 0, 0, 0] }: Conv2dOptions,
) {
  const graph = newGraph();
  const x = input(graph, 'x', shape);
  const attributes = { outChannels, kernel, stride, padding };
  const weight = noise('weight', outChannels * shape[0] * kernel[0] * kernel[1]);
  const y = apply(graph, 'conv2d', attributes, { x }, { weight });
  if (result === 'y') output(graph, 'y', y);
  else {
    const dy = input(graph, 'dy', y.shape);
    const { values, constants } = differentiate(graph, {
      seeds: [{ of: y, gradient: dy }],
      ...(result === 'dx' ? { values: [x] } : { constants: () => true }),
    });
    graph.nodes.shift();
    output(graph, result, result === 'dx' ? values.get(x.id)! : constants.get('weight')!);
  }
  return graph;
}

async function timeResult(
  device: Device,
  result: Result,
  convolution: Conv2dOptions,
  repetitions: number,
): Promise<Timing> {
  const weights = weightStore(device);
  const made = await plan(device, graphOf(result, convolution), { weights, weightDtype: 'f32' });
  const timing = await time(device, made.launches, repetitions);
  made.destroy();
  weights.destroy();
  return timing;
}

const repetitions = Math.max(1, Number(options.repetitions));
const device = await openDevice(options.family ? { family: options.family as Family } : {});
const { description, family } = device.capabilities;
console.log(`${description}, ${family} family; medians of ${repetitions}\n`);
const results = [];
for (const { name, options: convolution } of benchCases.filter((entry) =>
  entry.name.includes(options.match),
)) {
  const y = await timeResult(device, 'y', convolution, repetitions);
  const dx = await timeResult(device, 'dx', convolution, repetitions);
  const dW = await timeResult(device, 'dW', convolution, repetitions);
  const [oh, ow] = outputSize(convolution);
  const { x, outChannels, kernel } = convolution;
  const flops = 2 * outChannels * x[0] * kernel[0] * kernel[1] * x[1] * oh * ow;
  results.push({ name, flops, y, dx, dW });
  console.log(name);
  for (const [result, timing] of Object.entries({ y, dx, dW }))
    console.log(
      [
        `  ${result}`.padEnd(6),
        `${timing.ms.toFixed(3)} ms`.padStart(12),
        `${(flops / timing.aloneMs / 1e6).toFixed(1)} GFLOP/s`.padStart(16),
        result === 'y' ? '' : `${(y.aloneMs / timing.aloneMs).toFixed(2)} of the forward speed`.padStart(30),
      ].join(' '),
    );
}
if (options.json) {
  await mkdir(dirname(options.json), { recursive: true });
  const report = { device: description, family, node: process.version, repetitions, results };
  await writeFile(options.json, `${JSON.stringify(report, null, 2)}\n`);
}
device.close();
