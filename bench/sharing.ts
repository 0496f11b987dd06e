// How much is saved if candidates share a view (an image, a level and a noise)? A UNet of Stable Diffusion's kind with
// random weights evaluates prompts one by one, in a batch with one view per prompt, and in a batch with a single view.
// Keys and values of the prompts are inputs, and for comparison they are also computed in every evaluation.
//
//   npm run bench -- sharing [options]

import { costOf } from '../src/graph/core/cost.ts';
import { apply, type Graph, input, newGraph, output } from '../src/graph/core/graph.ts';
import { plan } from '../src/graph/core/plan.ts';
import { weightStore } from '../src/graph/core/weight-store.ts';
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
import { randomParameters } from './device/random-weights.ts';
import { openBench } from './run.ts';

const { values: options, record } = openBench('sharing', {
  config: { type: 'string', help: 'the config.json of a UNet2DConditionModel' },
  channels: { type: 'string', default: '64,128,256,256', help: 'channels of the blocks, without --config' },
  size: { type: 'string', default: '32', help: 'side of the latents' },
  candidates: { type: 'string', default: '16', help: 'prompts that are compared' },
  tokens: { type: 'string', default: '77', help: 'tokens of a prompt' },
  repetitions: { type: 'string', default: '5', help: 'repetitions of each measurement' },
  weights: { type: 'string', default: 'f32', help: 'how weights are stored: f32 or f16' },
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

const parameters = randomParameters();

/** Returns the graph of `samples` samples of `views` views. Keys and values are inputs, or computed from contexts. */
function traced(views: number, samples: number, keysAreInputs: boolean): Graph {
  const graph = newGraph();
  const shared = unet2dConditionShared(graph, parameters, config, {
    sample: input(graph, 'sample', [config.inChannels, views, side, side]),
    time: input(graph, 'time', [timeRowLength(config), views, 1, 1]),
  });
  const repeated = (index: Value) => shared.map((x) => apply(graph, 'pickSamples', {}, { x, index }));
  const context = keysAreInputs
    ? undefined
    : input(graph, 'context', [config.crossAttentionDim, samples, tokens, 1]);
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

/** Prints the time and the operations per evaluation, and returns the time in milliseconds. */
async function measure(name: string, views: number, samples: number, keysAreInputs = true) {
  const graph = traced(views, samples, keysAreInputs);
  const gflop = costOf(graph).flop / samples / 1e9;
  const made = await plan(device, graph, { weights, weightDtype: options.weights as WeightDtype });
  const timing = await time(device, made.launches, Number(options.repetitions), 1);
  const ms = timing.ms / samples;
  record({ name, ...timing, samples, gflop, bytes: made.bytes }, device);
  console.log(
    `${name.padEnd(60)} ${ms.toFixed(1).padStart(9)} ms ${gflop.toFixed(2).padStart(8)} GFLOP per evaluation, activations ${(made.bytes / 2 ** 20).toFixed(0)} MiB`,
  );
  made.destroy();
  return ms;
}

console.log(
  `${device.capabilities.description}, family ${device.capabilities.family}, ${candidates} candidates`,
);
const whole = await measure('one by one, with keys and values computed each time', 1, 1, false);
const alone = await measure('one by one', 1, 1);
const apart = await measure(`a batch of ${candidates}, one view per prompt`, candidates, candidates);
const together = await measure(`a batch of ${candidates}, one view`, 1, candidates);
const ratio = (of: number) => (together / of).toFixed(3);
console.log(
  `a shared view takes ${ratio(apart)} of the time of one view per prompt, ${ratio(alone)} of one by one, ${ratio(whole)} of one by one with keys and values`,
);
weights.destroy();
device.close();
