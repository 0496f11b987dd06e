// Networks of full size with random weights: Stable Diffusion 1.5's UNet and DiT-XL/2, planned and run as the product
// plans and runs them.

import { costOf } from '../../src/graph/core/cost.ts';
import { type Graph, input, newGraph, output } from '../../src/graph/core/graph.ts';
import { plan } from '../../src/graph/core/plan.ts';
import { type WeightStore, weightStore } from '../../src/graph/core/weight-store.ts';
import type { ExpectedTensor } from '../../src/graph/files/expected-tensors.ts';
import { dit, ditTensors } from '../../src/graph/networks/dit.ts';
import { parseDitConfig } from '../../src/graph/networks/dit-config.ts';
import { TIME_ROW, timeRowLength, timeRows } from '../../src/graph/networks/time-embedding.ts';
import {
  keysAndValues,
  unet2dCondition,
  unet2dConditionShared,
  unet2dConditionTensors,
} from '../../src/graph/networks/unet2d-condition.ts';
import { parseUNet2DConditionConfig } from '../../src/graph/networks/unet2d-condition-config.ts';
import type { Device } from '../../src/kernels/device/device.ts';
import { forPrecision } from '../../src/kernels/device/for-precision.ts';
import { idle, readBack, submit, withMemoryCheck } from '../../src/kernels/device/runtime.ts';
import type { Stored } from '../../src/kernels/device/storage.ts';
import { storageElements } from '../../src/kernels/device/tensor.ts';
import { product } from '../../src/numbers.ts';
import type { Peak } from './peak.ts';
import { fillRandom, randomParameters } from './random-weights.ts';
import { messageOf, type Session, type Step } from './session.ts';
import { measureEncoded, type Profile, profile } from './timing.ts';

/** Stable Diffusion 1.5's UNet2DConditionModel. */
export const SD15 = {
  _class_name: 'UNet2DConditionModel',
  sample_size: 64,
  in_channels: 4,
  out_channels: 4,
  center_input_sample: false,
  flip_sin_to_cos: true,
  freq_shift: 0,
  down_block_types: ['CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'],
  up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D'],
  block_out_channels: [320, 640, 1280, 1280],
  layers_per_block: 2,
  downsample_padding: 1,
  mid_block_scale_factor: 1,
  act_fn: 'silu',
  norm_num_groups: 32,
  norm_eps: 1e-5,
  cross_attention_dim: 768,
  attention_head_dim: 8,
};

const DIT_XL_2 = {
  _class_name: 'DiTTransformer2DModel',
  num_attention_heads: 16,
  attention_head_dim: 72,
  in_channels: 4,
  out_channels: 8,
  num_layers: 28,
  sample_size: 32,
  patch_size: 2,
  num_embeds_ada_norm: 1000,
};

/** A network to time: its graph at a batch size, and values of inputs. Inputs without values get random ones. */
export interface Network {
  readonly name: string;
  readonly parameters: number;
  readonly trace: (batch: number) => Graph;
  readonly inputs: (batch: number) => Readonly<Record<string, ArrayBufferView<ArrayBuffer>>>;
}

/** Returns the number of a network's parameters. */
const count = (tensors: readonly ExpectedTensor[]): number =>
  tensors.reduce((sum, { shape }) => sum + product(shape), 0);

/** Returns a network of the shape of Stable Diffusion's, by default of its size. */
export function stableDiffusion(shape: typeof SD15 = SD15): Network {
  const config = parseUNet2DConditionConfig(shape, 'SD 1.5');
  const parameters = randomParameters();
  const length = timeRowLength(config);
  return {
    name: 'SD 1.5 UNet',
    parameters: count(unet2dConditionTensors(config)),
    trace(batch) {
      const graph = newGraph();
      const context = input(graph, 'context', [config.crossAttentionDim, batch, 77, 1]);
      const shared = unet2dConditionShared(graph, parameters, config, {
        sample: input(graph, 'sample', [4, batch, shape.sample_size, shape.sample_size]),
        time: input(graph, 'time', [length, batch, 1, 1]),
      });
      const crossAttention = (name: string, inner: number) =>
        keysAndValues(graph, parameters, { name, inner }, context);
      output(graph, 'y', unet2dCondition(graph, parameters, config, { shared, crossAttention }));
      return graph;
    },
    inputs: (batch) => ({ time: sameRow(timeRows(config, [500]), batch) }),
  };
}

export function ditXl2(): Network {
  const config = parseDitConfig(DIT_XL_2, 'DiT-XL/2');
  const parameters = randomParameters();
  return {
    name: 'DiT-XL/2',
    parameters: count(ditTensors(config)),
    trace(batch) {
      const graph = newGraph();
      const inputs = {
        sample: input(graph, 'sample', [4, batch, 32, 32]),
        time: input(graph, 'time', [256, batch, 1, 1]),
        label: input(graph, 'label', [1, batch, 1, 1]),
      };
      output(graph, 'y', dit(graph, parameters, config, inputs));
      return graph;
    },
    inputs: (batch) => ({
      time: sameRow(timeRows(TIME_ROW, [500]), batch),
      label: Uint32Array.from({ length: batch }, (_, i) => (37 * i) % 1000),
    }),
  };
}

/** Repeats a row for every sample, in channel-major order: the values of a channel are padded to whole vec4s. */
function sameRow(row: Float32Array, batch: number): Float32Array<ArrayBuffer> {
  const pitch = Math.ceil(batch / 4) * 4;
  const all = new Float32Array(row.length * pitch);
  row.forEach((value, i) => {
    all.fill(value, i * pitch, i * pitch + batch);
  });
  return all;
}

export interface NetworkResult {
  readonly precision: Stored;
  readonly batch: number;
  readonly ms?: number;
  readonly wallMs?: number;
  readonly samples?: readonly number[];
  readonly disturbed?: boolean;
  readonly msPerSample?: number;
  readonly firstMs?: number;
  readonly loadSeconds?: number;
  readonly flop: number;
  readonly gflops?: number;
  readonly shareOfFlops?: number;
  readonly weightMiB?: number;
  readonly activationMiB?: number;
  readonly launches?: number;
  readonly output?: { readonly rms: number; readonly finite: boolean };
  readonly profile?: Profile | { readonly error: string };
  readonly skipped?: string;
  readonly error?: string;
}

/** Plans a network at a batch size, runs it once, and times further runs as far as the time allows. */
async function runNetwork(
  device: Device,
  step: Step,
  network: Network,
  batch: number,
  weights: WeightStore,
  precision: Stored,
  peak: number,
): Promise<NetworkResult> {
  const graph = network.trace(batch);
  const { flop } = costOf(graph);
  const start = performance.now();
  const made = await withMemoryCheck(device, () =>
    plan(device, graph, { weights, weightDtype: 'f16', precision }),
  );
  try {
    await idle(device);
    const loadSeconds = (performance.now() - start) / 1000;
    const values = network.inputs(batch);
    const write = (): void => {
      for (const [name, { shape }] of graph.inputs) {
        const { buffer, offset } = made.inputs.get(name)!;
        const data = values[name] ?? fillRandom(new Float32Array(storageElements(shape)));
        device.gpu.queue.writeBuffer(buffer, offset, data.buffer, data.byteOffset, data.byteLength);
      }
    };
    write();
    const first = performance.now();
    submit(device, (pass) => made.encode(pass));
    await idle(device);
    const firstMs = performance.now() - first;
    // Later values share the memory of inputs, so only the first run after `write` has the right output.
    const y = new Float32Array(await readBack(device, made.outputs.get('y')!));
    const squares = y.reduce((sum, value) => sum + value * value, 0);
    const common = {
      precision,
      batch,
      flop,
      loadSeconds,
      firstMs,
      weightMiB: weights.bytes() / 2 ** 20,
      activationMiB: made.bytes / 2 ** 20,
      launches: made.launches.length,
      output: { rms: Math.sqrt(squares / y.length), finite: Number.isFinite(squares) },
    };
    if (step.left() < firstMs)
      return {
        ...common,
        ms: firstMs,
        msPerSample: firstMs / batch,
        gflops: flop / firstMs / 1e6,
        shareOfFlops: flop / firstMs / 1e6 / peak,
        skipped: 'only the first run fits into the remaining time',
      };
    const slow = firstMs > 2000;
    const timing = await measureEncoded(device, made.encode, made.launches.length, {
      samples: slow ? 1 : 7,
      sampleMs: slow ? 1 : 100,
      left: step.left,
    });
    const rate = flop / timing.ms / 1e6;
    const result: NetworkResult = {
      ...common,
      ms: timing.ms,
      wallMs: timing.wallMs,
      samples: timing.samples,
      disturbed: timing.disturbed,
      msPerSample: timing.ms / batch,
      gflops: rate,
      shareOfFlops: rate / peak,
    };
    if (step.left() < 2 * timing.wallMs) return result;
    write();
    const shares = await profile(device, made.launches, { top: 15, left: step.left }).catch((error) => ({
      error: messageOf(error),
    }));
    return { ...result, profile: shares };
  } finally {
    made.destroy();
  }
}

const seconds = (milliseconds: number): string => `${(milliseconds / 1000).toFixed(1)} s`;

/** Returns what products of a plan can reach at most: on matrix units in f16, else in registers. */
export const peakOf = (device: Device, precision: Stored, { gflops, matrixGflops }: Peak): number =>
  (forPrecision(device.capabilities, precision).family === 'matrix' && matrixGflops) || gflops;

/**
 * Times a network in a precision at several batch sizes, with weights in f16. Skips a size if the measured rate predicts
 * that it will take too long.
 */
export async function timeNetwork(
  session: Session,
  step: Step,
  make: () => Network,
  batches: readonly number[],
  precision: Stored,
  peaks: Peak,
): Promise<unknown> {
  const network = make();
  const device = await session.tunedDevice();
  const peak = peakOf(device, precision, peaks);
  const weights = weightStore(device);
  const results: NetworkResult[] = [];
  const found = () => ({ name: network.name, parameters: network.parameters, precision, results });
  step.say(`${network.name}: ${network.parameters} parameters, weights as f16, activations as ${precision}`);
  let rate = 0.5 * peaks.gflops;
  try {
    for (const batch of batches) {
      const { flop } = costOf(network.trace(batch));
      // The predicted time of one run. Loading is not included: it is known only after the first batch.
      const needed = flop / Math.max(rate, 1) / 1e6;
      if (needed > step.left()) {
        const left = Math.max(0, step.left());
        const skipped = `one run would take ${seconds(needed)}, and ${seconds(left)} are left`;
        results.push({ precision, batch, flop, skipped });
        step.say(`batch ${batch}: skipped, ${skipped}`);
        continue;
      }
      try {
        const result = await session.withErrors(() =>
          runNetwork(device, step, network, batch, weights, precision, peak),
        );
        results.push(result);
        if (result.gflops) rate = Math.max(rate, result.gflops);
        step.say(
          `batch ${batch}: ${result.ms?.toFixed(2)} ms, ${result.gflops?.toFixed(0)} GFLOP/s (${(100 * (result.shareOfFlops ?? 0)).toFixed(1)} % of peak), ready in ${result.loadSeconds?.toFixed(1)} s, first run ${result.firstMs?.toFixed(0)} ms, output ${result.output?.finite ? `rms ${result.output.rms.toFixed(3)}` : 'NOT FINITE'}`,
        );
        if (result.profile && 'kernels' in result.profile)
          for (const { name, launches, ms, share } of result.profile.kernels.slice(0, 5))
            step.say(
              `  ${name.padEnd(52)} ${String(launches).padStart(4)} ${ms.toFixed(2).padStart(9)} ms ${(100 * share).toFixed(1).padStart(5)} %`,
            );
      } catch (error) {
        results.push({ precision, batch, flop, error: messageOf(error) });
        step.say(`batch ${batch}: ${messageOf(error).slice(0, 200)}`);
        if (device.isLost()) break;
      }
      step.keep(found());
    }
  } finally {
    weights.destroy();
  }
  return found();
}
