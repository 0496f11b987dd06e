// How long do the gradients of a convolution take, compared with the convolution itself?
//
//   npm run bench -- backward [options]
//
// Three plans per case run in turn: y; dx, of however many nodes; and dW. Their speeds are relative to the forward pass:
// all three do the same number of operations by definition.

import { BACKWARD } from '../src/bench/cases.ts';
import { disturbanceText } from '../src/bench/kernel-table.ts';
import { weightGradientCase } from '../src/bench/product-builders.ts';
import { millisecondsText, tableLine, tableTitles } from '../src/bench/table.ts';
import { differentiate } from '../src/graph/core/gradient.ts';
import { apply, type Graph, input, newGraph, output } from '../src/graph/core/graph.ts';
import { plan } from '../src/graph/core/plan.ts';
import { weightStore } from '../src/graph/core/weight-store.ts';
import type { Conv2dAttributes } from '../src/graph/ops/conv2d.ts';
import type { Constant } from '../src/graph/ops/value.ts';
import type { Device } from '../src/kernels/device/device.ts';
import { FAMILIES } from '../src/kernels/device/families.ts';
import type { Shape } from '../src/kernels/device/tensor.ts';
import { isDisturbed, type Timing, time } from '../src/kernels/device/time.ts';
import { openBench, openFamily } from './run.ts';

const { values: options, record } = openBench('backward', {
  match: { type: 'string', default: '', help: 'time the cases only whose name contains this text' },
  family: { type: 'string', help: `family of kernels: ${FAMILIES.join(', ')}` },
  repetitions: { type: 'string', default: '9', help: 'repetitions of each measurement' },
});

const RESULTS = ['y', 'dx', 'dW'] as const;
type Result = (typeof RESULTS)[number];

const noise = (name: string, length: number): Constant => ({
  name,
  length,
  values: async () => Float32Array.from({ length }, (_, i) => Math.sin(7 * i) / 8),
});

/** Returns a graph whose only output is `result`. */
function graphOf(result: Result, shape: Shape, attributes: Conv2dAttributes): Graph {
  const graph = newGraph();
  const x = input(graph, 'x', shape);
  const { outChannels, kernel } = attributes;
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

async function timeGraph(device: Device, graph: Graph, repetitions: number): Promise<Timing> {
  const weights = weightStore(device);
  const made = await plan(device, graph, { weights, weightDtype: 'f32' });
  const timing = await time(device, made.launches, repetitions);
  made.destroy();
  weights.destroy();
  return timing;
}

const repetitions = Math.max(1, Number(options.repetitions));
const cases = BACKWARD.map(([x, given = {}]) => ({ x, given, ...weightGradientCase(x, given) })).filter(
  ({ name }) => name.includes(options.match),
);
if (cases.length === 0) {
  console.error(`bench backward: --match: expected a part of a case's name, got "${options.match}"`);
  process.exit(2);
}
const device = await openFamily(options.family);
const { description, family } = device.capabilities;
console.log(`${description}, ${family} family; medians of ${repetitions} by the clock\n`);
const columns = [
  { title: 'case', width: Math.max(...cases.map(({ name }) => name.length)), align: 'left' },
  ...RESULTS.map((result) => ({ title: `${result} ms`, width: 8 })),
  ...RESULTS.map((result) => ({ title: `${result} GFLOP/s`, width: 10 })),
  { title: 'dx / y speed', width: 6 },
  { title: 'dW / y speed', width: 6 },
  { title: '', width: 1, align: 'left' },
] as const;
console.log(tableTitles(columns));
const measured = [];
for (const { name, x, given, flops } of cases) {
  const { channels = x[0], kernel = [3, 3], stride = 1 } = given;
  const [top, left] = [(kernel[0] - 1) >> 1, (kernel[1] - 1) >> 1];
  const padding = given.padding ?? ([top, left, top, left] as const);
  const attributes = { outChannels: channels, kernel, stride, padding };
  const found = [];
  for (const result of RESULTS) {
    const timing = await timeGraph(device, graphOf(result, x, attributes), repetitions);
    const one = { ...timing, disturbed: isDisturbed(timing), gflops: flops / timing.ms / 1e6 };
    record({ name: `${name} ${result}`, family, ...one }, device);
    found.push(one);
  }
  const [y, dx, dW] = found;
  console.log(
    tableLine(columns, [
      name,
      ...found.map(({ ms }) => millisecondsText(ms)),
      ...found.map(({ gflops }) => gflops.toFixed(1)),
      (y!.ms / dx!.ms).toFixed(2),
      (y!.ms / dW!.ms).toFixed(2),
      found.some(({ disturbed }) => disturbed) ? '*' : '',
    ]),
  );
  measured.push(...found.map((one) => ({ name, ...one })));
}
const warning = disturbanceText(measured);
if (warning) console.log(warning);
device.close();
