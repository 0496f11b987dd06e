import type { Graph } from '../../src/graph/core/graph.ts';
import { plan } from '../../src/graph/core/plan.ts';
import { weightStore } from '../../src/graph/core/weight-store.ts';
import type { Device } from '../../src/kernels/device/device.ts';
import type { WeightDtype } from '../../src/kernels/device/routine.ts';
import { idle, readBack, submit } from '../../src/kernels/device/runtime.ts';
import type { Stored } from '../../src/kernels/device/storage.ts';
import { fromChannelMajor, toChannelMajor } from '../../src/kernels/device/tensor.ts';

/**
 * Runs a graph once on a device and returns its outputs by name. Inputs (numbers, or a Uint32Array for indices) and
 * outputs are in [n, c, h, w] order.
 */
export async function runGraph(
  device: Device,
  graph: Graph,
  inputs: Readonly<Record<string, ArrayLike<number>>>,
  weightDtype: WeightDtype = 'f32',
  precision: Stored = 'f32',
): Promise<Record<string, Float32Array>> {
  const weights = weightStore(device);
  const made = await plan(device, graph, { weights, weightDtype, precision });
  for (const [name, { shape }] of graph.inputs) {
    const values = inputs[name]!;
    const { buffer, offset } = made.inputs.get(name)!;
    const data = values instanceof Uint32Array ? new Uint32Array(values) : toChannelMajor(values, shape);
    device.gpu.queue.writeBuffer(buffer, offset, data);
  }
  submit(device, (pass) => made.encode(pass));
  await idle(device);
  const outputs: Record<string, Float32Array> = {};
  for (const [name, { shape }] of graph.outputs) {
    const bytes = await readBack(device, made.outputs.get(name)!);
    outputs[name] = fromChannelMajor(new Float32Array(bytes), shape);
  }
  made.destroy();
  weights.destroy();
  return outputs;
}
