// What is saved where candidates share a view (an image, a level, a noise)? A random UNet of Stable Diffusion's kind
// evaluates as many prompts alone, in one batch with a view each, and in one batch of a single view; keys and
// values of the prompts are given, and for comparison made anew with every evaluation.
//
//   npm run bench -- sharing [--config FILE] [--channels 64,128,256,256] [--size 32] [--candidates 16]

import { parseArgs } from 'node:util';
import { costOf } from '../src/graph/core/cost.ts';
import { apply, type Graph, input, newGraph, output } from '../src/graph/core/graph.ts';
import { plan } from '../src/graph/core/plan.ts';
import { weightStore } from '../src/graph/core/weight-store.ts';
import { lengthOf } from '../src/graph/files/expected-tensors.ts';
import type { Parameters } from '../src/graph/files/parameters.ts';
import { timeRowLength } from '../src/graph/networks/time-embedding.ts';
import {
  keysAndValues,
  unet2dCondition,
  unet2dConditionShared,
} from '../src/graph/networks/unet2d-condition.ts';
import {
  parseUNet2DConditionConfig,
  readUNet2DConditionConfig,
} from '../src/graph/networks/unet2d-condition-config.ts';
import { fileAt } from '../src/graph/node/folder-files.ts';
import type { Value } from '../src/graph/ops/value.ts';
import { openDevice } from '../src/kernels/device/device.ts';
import type { WeightDtype } from '../src/kernels/device/routine.ts';
import { time } from '../src/kernels/device/time.ts';
import { randomValues } from '../test/kernels/harness.ts';

const { values: options } = parseArgs({
  options: {
    config: { type: 'string' },
    channels: { type: 'string', default: '64,128,256,256' },
    size: { type: 'string', default: '32' },
    candidates: { type: 'string', default: '16' },
    tokens: { type: 'string', default: '77' },
    repetitions: { type: 'string', default: '5' },
    weights: { type: 'string', default: 'f32' },
  },
});
const config = options.config
  ? await readUNet2DConditionConfig(...fileAt(options.config))
  : parseUNet2DConditionConfig(
      { block_out_channels: options.channels.split(',').map(Number), cross_attention_dim: 768 },
      'the options',
    );
const side = Number(options.size);
const candidates = Number(options.candidates);
const tokens = Number(options.tokens);

/** Random weights that keep the scale of what passes through. */
const parameters: Parameters = (name, shape) => {
  const length = lengthOf(shape);
  const scale = shape.length === 1 ? 1 : Math.sqrt((3 * shape[0]!) / length);
  return { name, length, values: async () => randomValues(length).map((v) => v * scale) };
};

/** `views` views, and `samples` samples of them; keys and values given, or made of contexts. */
function traced(views: number, samples: number, given: boolean): Graph {
  const graph = newGraph();
  const shared = unet2dConditionShared(graph, parameters, config, {
    sample: input(graph, 'sample', [config.inChannels, views, side, side]),
    time: input(graph, 'time', [timeRowLength(config), views, 1, 1]),
  });
  const repeated = (index: Value) => shared.map((x) => apply(graph, 'pickSamples', {}, { x, index }));
  const context = given ? undefined : input(graph, 'context', [config.crossAttentionDim, samples, tokens, 1]);
  const y = unet2dCondition(graph, parameters, config, {
    shared: views === samples ? shared : repeated(input(graph, 'view', [1, samples, 1, 1])),
    crossAttention(name, inner) {
      if (context) return keysAndValues(graph, parameters, { name, inner }, context);
      const part = (of: string) => input(graph, `${name} ${of}`, [inner, samples, tokens, 1]);
      return { k: part('k'), v: part('v') };
    },
  });
  output(graph, 'y', y);
  return graph;
}

const device = await openDevice();
const weights = weightStore(device);

/** Milliseconds and GFLOP of an evaluation. */
async function measure(what: string, views: number, samples: number, given = true) {
  const graph = traced(views, samples, given);
  const gflop = costOf(graph).flop / samples / 1e9;
  const made = await plan(device, graph, { weights, weightDtype: options.weights as WeightDtype });
  const { aloneMs } = await time(device, made.launches, Number(options.repetitions), 1);
  const ms = aloneMs / samples;
  console.log(
    `${what.padEnd(60)} ${ms.toFixed(1).padStart(9)} ms ${gflop.toFixed(2).padStart(8)} GFLOP an evaluation, activations ${(made.bytes / 2 ** 20).toFixed(0)} MiB`,
  );
  made.destroy();
  return ms;
}

console.log(
  `${device.capabilities.description}, family ${device.capabilities.family}, ${candidates} candidates`,
);
const whole = await measure('one at a time, keys and values made each time', 1, 1, false);
const alone = await measure('one at a time', 1, 1);
const apart = await measure(`a batch of ${candidates}, a view each`, candidates, candidates);
const together = await measure(`a batch of ${candidates}, one view`, 1, candidates);
const ratio = (of: number) => (together / of).toFixed(3);
console.log(
  `one view takes ${ratio(apart)} of a view each in a batch, ${ratio(alone)} of one at a time, ${ratio(whole)} with keys and values`,
);
weights.destroy();
device.close();
