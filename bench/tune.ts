// How much faster is a whole network with tiles that were searched for on this device than with the tiles that are
// shipped for it? Searches on the network's plan, then times both plans in turns.

import type { Graph } from '../src/graph/core/graph.ts';
import { type Plan, type PlanOptions, plan } from '../src/graph/core/plan.ts';
import { weightStore } from '../src/graph/core/weight-store.ts';
import { trace } from '../src/graph/evaluation/evaluation.ts';
import { loadModel } from '../src/graph/models/open-model.ts';
import { modelFiles } from '../src/graph/node/model-source.ts';
import type { Device } from '../src/kernels/device/device.ts';
import { createStorage } from '../src/kernels/device/runtime.ts';
import { classKey } from '../src/kernels/device/shape-class.ts';
import { timedRuns } from '../src/kernels/device/timed-work.ts';
import { tunedDevice } from '../src/kernels/device/tuned-device.ts';
import { median, product, quantile } from '../src/numbers.ts';
import { SD15, stableDiffusion } from './device/networks.ts';
import { openBench, openFamily } from './run.ts';

const { values: options, record } = openBench('tune', {
  model: {
    type: 'string',
    default: 'fashion-mnist',
    help: 'a model; sd: random weights in the shape of Stable Diffusion 1.5; sd-small: a fifth of its channels',
  },
  batch: { type: 'string', default: '64', help: 'evaluations of a batch' },
  budget: { type: 'string', default: '20', help: 'seconds that the search may take' },
  pairs: { type: 'string', default: '15', help: 'pairs of runs that are compared' },
  family: { type: 'string', help: 'family of kernels' },
});

/** A network at a batch size, and how to plan it. */
interface Subject {
  readonly graph: Graph;
  readonly planning: Omit<PlanOptions, 'weights'>;
  readonly close: () => Promise<void>;
}

const SMALL = { ...SD15, sample_size: 32, block_out_channels: [64, 128, 256, 256] };

async function subjectOf(device: Device, name: string, batch: number): Promise<Subject> {
  if (name === 'sd' || name === 'sd-small') {
    const network = stableDiffusion(name === 'sd' ? SD15 : SMALL);
    return { graph: network.trace(batch), planning: { weightDtype: 'f16' }, close: async () => {} };
  }
  const { network, evaluation, close } = await loadModel(await modelFiles(name), { batchSize: batch });
  const slots = createStorage(device, evaluation.slots * 4 * product(network.image));
  return {
    graph: trace(network, evaluation, batch),
    planning: {
      weightDtype: evaluation.weightDtype,
      external: { slots: { buffer: slots, offset: 0, size: slots.size } },
    },
    close,
  };
}

/** Returns the tiles of a plan by the classes of their shapes, and how many launches each class has. */
function tilesOf({ launches }: Plan): Map<string, { readonly tile: string; readonly count: number }> {
  const tiles = new Map<string, { readonly tile: string; readonly count: number }>();
  for (const { kernel } of launches) {
    if (!kernel.tuning) continue;
    const key = classKey(kernel.tuning.shape);
    tiles.set(key, { tile: kernel.tuning.tile, count: (tiles.get(key)?.count ?? 0) + 1 });
  }
  return tiles;
}

const device = await openFamily(options.family);
const batch = Number(options.batch);
const { graph, planning, close } = await subjectOf(device, options.model, batch);
const weights = weightStore(device);
const shipped = await plan(tunedDevice(device, { tune: false }), graph, { ...planning, weights });
const start = performance.now();
const searching = tunedDevice(device, { tune: true, budgetMs: 1000 * Number(options.budget) });
const tuned = await plan(searching, graph, { ...planning, weights });
const searchSeconds = (performance.now() - start) / 1000;
await close();

const run = (made: Plan, runs: number) => timedRuns(device, (pass) => made.encode(pass), runs);
await run(shipped, 1);
await run(tuned, 1);
const runs = Math.max(1, Math.ceil(50 / (await run(shipped, 1)).ms));
const times: { readonly shipped: number; readonly tuned: number }[] = [];
for (let pair = 0; pair < Number(options.pairs); pair++) {
  const first = (await run(shipped, runs)).ms;
  times.push({ shipped: first, tuned: (await run(tuned, runs)).ms });
}
const ratios = times.map((pair) => pair.shipped / pair.tuned);
const [before, after] = [tilesOf(shipped), tilesOf(tuned)];
const changes = [...after]
  .filter(([key, { tile }]) => before.get(key)?.tile !== tile)
  .map(([key, { tile, count }]) => ({
    shape: key,
    launches: count,
    shipped: before.get(key)!.tile,
    tuned: tile,
  }));
const result = {
  name: options.model,
  batch,
  searchSeconds,
  classes: after.size,
  changes,
  shippedMs: median(times.map((pair) => pair.shipped)),
  tunedMs: median(times.map((pair) => pair.tuned)),
  /** Shipped divided by tuned, pair by pair: the median, and the quartiles. */
  speedup: median(ratios),
  quartiles: [quantile(ratios, 0.25), quantile(ratios, 0.75)],
};
for (const { shape, launches, shipped: from, tuned: to } of changes)
  console.log(`${shape} (${launches}): ${from} -> ${to}`);
console.log(
  `${device.capabilities.description}\n${options.model}, batch ${batch}: shipped ${result.shippedMs.toFixed(2)} ms, tuned ` +
    `${result.tunedMs.toFixed(2)} ms, ${result.speedup.toFixed(3)}x (quartiles ${result.quartiles.map((q) => q.toFixed(3)).join(' to ')}); ` +
    `search ${searchSeconds.toFixed(1)} s, ${changes.length} of ${after.size} classes changed`,
);
record(result, device);
for (const made of [shipped, tuned]) made.destroy();
weights.destroy();
device.close();
