// What does a gradient cost compared with its evaluation, in time and in memory? Compares errors and their gradients with
// respect to the image with errors alone, in batches of one size; then the same with budgets of memory.
//
//   npm run bench -- gradient [options]

import { kernelShares, shareLine } from '../src/bench/kernel-shares.ts';
import { costOf } from '../src/graph/core/cost.ts';
import type { Graph } from '../src/graph/core/graph.ts';
import { plan } from '../src/graph/core/plan.ts';
import { weightStore } from '../src/graph/core/weight-store.ts';
import { traceGradients } from '../src/graph/evaluation/differentiable.ts';
import { trace } from '../src/graph/evaluation/evaluation.ts';
import { loadModel } from '../src/graph/models/open-model.ts';
import { modelFiles } from '../src/graph/node/model-source.ts';
import { openDevice } from '../src/kernels/device/device.ts';
import { createStorage, type Launch } from '../src/kernels/device/runtime.ts';
import { time } from '../src/kernels/device/time.ts';
import { openBench } from './run.ts';

const { values: options, record } = openBench('gradient', {
  model: { type: 'string', default: 'weights/fashion-mnist', help: 'a model folder' },
  batch: { type: 'string', default: '32', help: 'evaluations per batch' },
  repetitions: { type: 'string', default: '9', help: 'repetitions of each measurement' },
  budgets: {
    type: 'string',
    default: '0.85,0.75',
    help: 'shares of the activations that gradients may keep in memory',
  },
  launches: { type: 'string', default: '0', help: 'number of kernels that are listed with their times' },
});
const batch = Number(options.batch);
const repetitions = Number(options.repetitions);
const MIB = 2 ** 20;

const device = await openDevice();
const { network, evaluation, close } = await loadModel(await modelFiles(options.model), { batchSize: batch });
const size = evaluation.slots * 4 * network.image.reduce((product, side) => product * side, 1);
const external = { slots: { buffer: createStorage(device, size), offset: 0, size } };
const weights = weightStore(device);

interface Measured {
  readonly ms: number;
  readonly flop: number;
  readonly launches: readonly Launch[];
}

async function measure(graph: Graph, name: string, forward?: Measured): Promise<Measured> {
  const made = await plan(device, graph, { weights, weightDtype: evaluation.weightDtype, external });
  const timing = await time(device, made.launches, repetitions);
  const { ms, firstMs } = timing;
  const { flop, activationBytes } = costOf(graph);
  const against = forward
    ? `; ${(ms / forward.ms).toFixed(2)} x the time of the forward pass, ${(flop / forward.flop).toFixed(2)} x its operations`
    : '';
  console.log(
    `${name}: ${ms.toFixed(1)} ms, activations ${(activationBytes / MIB).toFixed(1)} MiB, with scratch ${(made.bytes / MIB).toFixed(1)} MiB, ` +
      `${made.launches.length} launches, first run ${(firstMs / 1000).toFixed(1)} s${against}`,
  );
  record(
    { name, ...timing, flop, activationBytes, bytes: made.bytes, launches: made.launches.length },
    device,
  );
  if (Number(options.launches) > 0) await printLargest(made.launches);
  made.destroy();
  return { ms, flop, launches: made.launches };
}

/** Prints the kernels that take most of a run, with each launch timed alone. */
async function printLargest(launches: readonly Launch[]): Promise<void> {
  const times: number[] = [];
  for (const launch of launches) times.push((await time(device, [launch], 3, 8)).ms);
  const sum = times.reduce((total, ms) => total + ms, 0);
  const names = launches.map(({ kernel }) => kernel.name);
  for (const share of kernelShares(names, times).slice(0, Number(options.launches)))
    console.log(`  ${shareLine(share)}`);
  console.log(`  sum of ${launches.length} launches alone ${sum.toFixed(1)} ms`);
}

console.log(`${device.capabilities.description}, family ${device.capabilities.family}, batch ${batch}`);
const forward = await measure(trace(network, evaluation, batch), 'errors');
const whole = traceGradients(network, evaluation, batch);
await measure(whole, 'gradients', forward);
for (const share of options.budgets.split(',').filter(Boolean).map(Number)) {
  const bytes = Math.floor(share * costOf(whole).activationBytes);
  const within = traceGradients(network, evaluation, batch, bytes);
  await measure(within, `gradients within ${(bytes / MIB).toFixed(1)} MiB`, forward);
}
await close();
device.close();
