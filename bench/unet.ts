// What does one evaluation of a model cost, and where does the time go? Times the whole network at a batch size, then
// each of its launches alone, and compares the whole with the sum of its parts.

import { parseArgs } from 'node:util';
import { plan } from '../src/graph/core/plan.ts';
import { weightStore } from '../src/graph/core/weight-store.ts';
import { trace } from '../src/graph/evaluation/evaluation.ts';
import { loadModel } from '../src/graph/models/open-model.ts';
import { modelFiles } from '../src/graph/node/model-path.ts';
import { type Family, openDevice } from '../src/kernels/device/device.ts';
import { createStorage, idle, prepare, submit } from '../src/kernels/device/runtime.ts';
import { kernelShares, shareLine } from './kernel-shares.ts';
import { median } from './median.ts';

const { values: options } = parseArgs({
  options: {
    model: { type: 'string', default: 'weights/fashion-mnist' },
    batch: { type: 'string', default: '128' },
    repetitions: { type: 'string', default: '9' },
    family: { type: 'string' },
    launches: { type: 'boolean', default: false },
  },
});
const device = await openDevice(options.family ? { family: options.family as Family } : {});
const batch = Number(options.batch);
const repetitions = Number(options.repetitions);
const { network, evaluation, close } = await loadModel(await modelFiles(options.model), { batchSize: batch });
const slots = createStorage(device, evaluation.slots * 4 * network.image.reduce((a, b) => a * b, 1));
const weights = weightStore(device);
const made = await plan(device, trace(network, evaluation, batch), {
  weights,
  weightDtype: evaluation.weightDtype,
  external: { slots: { buffer: slots, offset: 0, size: slots.size } },
});
await close();

/** Returns the median milliseconds of one run. Passes repeat it until the cost of a submission is negligible. */
async function time(encode: (pass: GPUComputePassEncoder) => void, leastMs = 12): Promise<number> {
  const once = async (times: number): Promise<number> => {
    const start = performance.now();
    submit(device, (pass) => {
      for (let k = 0; k < times; k++) encode(pass);
    });
    await idle(device);
    return (performance.now() - start) / times;
  };
  await once(1);
  const times = Math.min(200, Math.ceil(leastMs / (await once(4))));
  const all: number[] = [];
  for (let i = 0; i < repetitions; i++) all.push(await once(times));
  return median(all);
}

const cold = performance.now();
submit(device, (pass) => made.encode(pass));
await idle(device);
const first = performance.now() - cold;

const names = made.launches.map(({ kernel }) => kernel.name);
const times: number[] = [];
const sequence = await prepare(device, made.launches);
for (const i of names.keys()) times.push(await time((pass) => sequence.encode(pass, i, i + 1)));
const whole = await time(made.encode);
const sum = times.reduce((total, ms) => total + ms, 0);

if (options.launches)
  names.forEach((name, i) => {
    console.log(shareLine({ name: `${i} ${name}`, launches: 1, ms: times[i]!, share: times[i]! / sum }));
  });
else for (const share of kernelShares(names, times)) console.log(shareLine(share));
console.log(`\n${device.capabilities.description}, family ${device.capabilities.family}, batch ${batch}`);
console.log(
  `whole network ${whole.toFixed(2)} ms = ${((1000 * whole) / batch).toFixed(0)} us per evaluation; first run ${(first / 1000).toFixed(1)} s`,
);
console.log(
  `sum of ${times.length} launches alone ${sum.toFixed(2)} ms; whole / sum = ${(whole / sum).toFixed(3)}`,
);
console.log(
  `activations ${(made.bytes / 2 ** 20).toFixed(1)} MiB, weights ${(weights.bytes() / 2 ** 20).toFixed(1)} MiB`,
);
made.destroy();
device.close();
