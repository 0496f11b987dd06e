// Measures the shipped models on this device: evaluations per second by batch size, and the cost of a gradient.

import { join } from 'node:path';
import { costOf } from '../../src/graph/core/cost.ts';
import type { Graph } from '../../src/graph/core/graph.ts';
import { plan } from '../../src/graph/core/plan.ts';
import { weightStore } from '../../src/graph/core/weight-store.ts';
import { traceGradients, traceViewGradients } from '../../src/graph/evaluation/differentiable.ts';
import { trace } from '../../src/graph/evaluation/evaluation.ts';
import { type LoadedModel, loadModel } from '../../src/graph/models/open-model.ts';
import { folderFiles } from '../../src/graph/node/folder-files.ts';
import type { Device } from '../../src/kernels/device/device.ts';
import { createStorage, withMemoryCheck } from '../../src/kernels/device/runtime.ts';
import type { Stored } from '../../src/kernels/device/storage.ts';
import { peakOf } from './networks.ts';
import type { Peak } from './peak.ts';
import { fillRandom } from './random-weights.ts';
import { messageOf, type Session, type Step } from './session.ts';
import { type Measured, measure, type Profile, profile } from './timing.ts';

export const MODELS = ['fashion-mnist', 'fashion-mnist-multi-head', 'cifar-10'] as const;

export const folderOf = ({ options }: Session, model: string): string => join(options.root, 'weights', model);

interface Timed extends Measured {
  readonly flop: number;
  readonly launches: number;
  readonly activationMiB: number;
  readonly profile?: Profile;
}

/** A model at a batch size in a precision: its timing, or why there is none. */
export interface ModelRun extends Partial<Timed> {
  readonly batch: number;
  readonly precision: Stored;
  readonly candidates?: number;
  readonly runsPerSecond?: number;
  readonly evaluationsPerSecond?: number;
  readonly gflops?: number;
  readonly shareOfFlops?: number;
  readonly skipped?: string;
  readonly error?: string;
}

/** Plans a graph of a model and times its runs. */
async function timeGraph(
  device: Device,
  step: Pick<Step, 'left'>,
  { network, evaluation }: LoadedModel,
  graph: Graph,
  withProfile = false,
): Promise<Timed> {
  const pixels = network.image.reduce((product, side) => product * side, 1);
  const size = 4 * evaluation.slots * pixels;
  const slots = createStorage(device, size, fillRandom(new Float32Array(size / 4)), 'slots');
  const weights = weightStore(device);
  try {
    const made = await withMemoryCheck(device, () =>
      plan(device, graph, {
        weights,
        weightDtype: evaluation.weightDtype,
        precision: evaluation.precision,
        external: { slots: { buffer: slots, offset: 0, size: slots.size } },
      }),
    );
    try {
      const timing = await measure(device, made.launches, {
        samples: 7,
        sampleMs: 50,
        left: step.left,
      });
      return {
        ...timing,
        flop: costOf(graph).flop,
        launches: made.launches.length,
        activationMiB: made.bytes / 2 ** 20,
        ...(withProfile && step.left() > 4 * timing.wallMs
          ? { profile: await profile(device, made.launches, { top: 15, left: step.left }) }
          : {}),
      };
    } finally {
      made.destroy();
    }
  } finally {
    weights.destroy();
    slots.destroy();
  }
}

/** Returns the sizes of a batch. In multi-head models one network run (a view) gives one sample per class. */
function sizeOf({ network, evaluation }: LoadedModel, batch: number): { views: number; samples: number } {
  return { views: batch, samples: network.take ? batch * evaluation.candidates.length : batch };
}

/** Times every shipped model at several batch sizes. Skips sizes that are predicted to take too long. */
export async function timeModels(
  session: Session,
  step: Step,
  {
    batches,
    precisions,
    peaks,
  }: { readonly batches: readonly number[]; readonly precisions: readonly Stored[]; readonly peaks: Peak },
): Promise<unknown> {
  const found: Record<string, unknown> = {};
  let rate = 0.1 * peaks.gflops;
  const budget = step.left();
  for (const [i, name] of MODELS.entries()) {
    const results: ModelRun[] = [];
    found[name] = { results };
    const device = await session.tunedDevice();
    // Later models keep their share of the time.
    const until = budget * (1 - (i + 1) / MODELS.length);
    const left = (): number => step.left() - until;
    for (const batch of batches)
      for (const precision of precisions) {
        if (left() <= 0) break;
        const which = { batch, precision };
        let model: LoadedModel | undefined;
        try {
          model = await loadModel(folderFiles(folderOf(session, name)), { batchSize: batch, precision });
          const { views, samples } = sizeOf(model, batch);
          const graph = trace(model.network, model.evaluation, samples, views);
          const { flop } = costOf(graph);
          const needed = 5 * (flop / Math.max(rate, 1) / 1e6);
          if (needed > left()) {
            const skipped = `it would take ${(needed / 1000).toFixed(1)} s, more than is left`;
            results.push({ ...which, flop, skipped });
            continue;
          }
          const loaded = model;
          const timed = await session.withErrors(() =>
            timeGraph(device, { left }, loaded, graph, batch === 1024),
          );
          rate = Math.max(rate, timed.flop / timed.ms / 1e6);
          const runsPerSecond = (1000 * batch) / timed.ms;
          const gflops = timed.flop / timed.ms / 1e6;
          const shareOfFlops = gflops / peakOf(device, precision, peaks);
          results.push({
            ...which,
            candidates: model.evaluation.candidates.length,
            ...timed,
            runsPerSecond,
            evaluationsPerSecond: (1000 * samples) / timed.ms,
            gflops,
            shareOfFlops,
          });
          step.say(
            `${name} batch ${batch}, ${precision}: ${timed.ms.toFixed(3)} ms, ${runsPerSecond.toFixed(0)} network runs/s, ${gflops.toFixed(0)} GFLOP/s (${(100 * shareOfFlops).toFixed(1)} %), ${timed.launches} launches`,
          );
        } catch (error) {
          results.push({ ...which, error: messageOf(error) });
          step.say(`${name} batch ${batch}, ${precision}: ${messageOf(error).slice(0, 200)}`);
        } finally {
          await model?.close();
        }
        step.keep(found);
      }
  }
  return found;
}

/** Times a gradient and its forward pass, for all candidates of each view, as attacks need them. */
export async function timeGradients(
  session: Session,
  step: Step,
  batches: readonly number[],
): Promise<unknown> {
  const results: unknown[] = [];
  const name = 'fashion-mnist-multi-head';
  for (const batch of batches) {
    if (step.over()) break;
    const model = await loadModel(folderFiles(folderOf(session, name)), {
      batchSize: batch,
      precision: 'f32',
    });
    try {
      const device = await session.tunedDevice();
      const { network, evaluation } = model;
      const { views, samples } = sizeOf(model, batch);
      const forward = await timeGraph(device, step, model, trace(network, evaluation, samples, views));
      const { shared } = network;
      const graph = shared
        ? traceViewGradients({ ...network, shared }, evaluation, { samples, views })
        : traceGradients(network, evaluation, samples);
      if (3 * 4 * forward.ms > step.left()) {
        results.push({ batch, forwardMs: forward.ms, skipped: 'it does not fit into the remaining time' });
        break;
      }
      const gradient = await session.withErrors(() => timeGraph(device, step, model, graph, true));
      const ratio = gradient.ms / forward.ms;
      results.push({ batch, forwardMs: forward.ms, gradientMs: gradient.ms, ratio, forward, gradient });
      step.say(
        `gradient of ${batch} views: ${gradient.ms.toFixed(2)} ms, ${ratio.toFixed(2)} times the forward pass of ${forward.ms.toFixed(2)} ms`,
      );
    } catch (error) {
      results.push({ batch, error: messageOf(error) });
    } finally {
      await model.close();
    }
    step.keep({ model: name, results });
  }
  return { model: name, results };
}
