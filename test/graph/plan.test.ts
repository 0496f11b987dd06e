import { describe, expect, it } from 'vitest';
import { OutOfMemoryError } from '../../src/errors.ts';
import { apply, type Graph, input, newGraph, output } from '../../src/graph/core/graph.ts';
import { type PlanOptions, plan } from '../../src/graph/core/plan.ts';
import { activationPool } from '../../src/graph/core/pool.ts';
import { weightStore } from '../../src/graph/core/weight-store.ts';
import type { Constant } from '../../src/graph/ops/value.ts';
import { readBack, submit } from '../../src/kernels/device/runtime.ts';
import { maxDifference, randomValues, testDevice } from '../kernels/harness.ts';

const constant = (name: string, length: number, seed: number): Constant => ({
  name,
  length,
  values: async () => randomValues(length, seed),
});

/** Returns a graph of two convolutions of 16 channels at 16x16. */
function convolutions(n: number): Graph {
  const graph = newGraph();
  const attributes = {
    outChannels: 32,
    kernel: [3, 3],
    stride: 1,
    padding: [1, 1, 1, 1],
  } as const;
  const x = input(graph, 'x', [32, n, 16, 16]);
  const h = apply(graph, 'conv2d', attributes, { x }, { weight: constant('first', 32 * 32 * 9, 1) });
  const y = apply(graph, 'conv2d', attributes, { x: h }, { weight: constant('second', 32 * 32 * 9, 2) });
  output(graph, 'y', y);
  return graph;
}

const SAMPLE = 32 * 256;

/** Returns the channel-major values of n equal samples. */
const repeated = (sample: Float32Array, n: number): Float32Array<ArrayBuffer> => {
  const out = new Float32Array(SAMPLE * n);
  for (let c = 0; c < 32; c++)
    for (let i = 0; i < n; i++) out.set(sample.subarray(256 * c, 256 * (c + 1)), 256 * (c * n + i));
  return out;
};

describe('plan', () => {
  it('keeps transformed weights only within its budget', async () => {
    const device = await testDevice();
    const x = randomValues(SAMPLE);
    const run = async (options: Partial<PlanOptions>) => {
      const weights = weightStore(device);
      const made = await plan(device, convolutions(1), { weights, weightDtype: 'f32', ...options });
      device.gpu.queue.writeBuffer(made.inputs.get('x')!.buffer, made.inputs.get('x')!.offset, x);
      submit(device, (pass) => made.encode(pass));
      const y = new Float32Array(await readBack(device, made.outputs.get('y')!));
      const bytes = weights.bytes();
      made.destroy();
      weights.destroy();
      return { y, bytes };
    };
    const transformed = 2 * 4 * 36 * 32 * 32;
    const fast = await run({});
    expect(fast.bytes).toBe(transformed);
    expect((await run({ transformedBytes: transformed })).bytes).toBe(transformed);
    const compact = await run({ transformedBytes: transformed - 1 });
    expect(compact.bytes).toBe(transformed / 4);
    const largest = Math.max(...fast.y.map(Math.abs));
    expect(maxDifference(compact.y, fast.y).difference / largest).toBeLessThan(1e-5);
  });

  it('rejects a weight that the device cannot bind, before it reads the weight', async () => {
    const device = await testDevice();
    const graph = newGraph();
    const x = input(graph, 'x', [64, 1, 1, 1]);
    const weight: Constant = {
      name: 'wide',
      length: 64 * 5000,
      values: () => Promise.reject(new Error('it was read')),
    };
    output(graph, 'y', apply(graph, 'linear', { outChannels: 5000 }, { x }, { weight }));
    const capabilities = { ...device.capabilities, maxBindingBytes: 2 ** 20 };
    const weights = weightStore(device);
    const made = plan({ ...device, capabilities }, graph, { weights, weightDtype: 'f32' });
    await expect(made).rejects.toThrow(OutOfMemoryError);
    await expect(made).rejects.toThrow(
      'expected weights of at most 1048576 bytes, which the device can bind, got wide of 1280000',
    );
    expect(weights.bytes()).toBe(0);
  });

  it('shares the memory of a pool with plans of other sizes, which run in turn', async () => {
    const device = await testDevice();
    const weights = weightStore(device);
    const pool = activationPool(device);
    const made = new Map<number, Awaited<ReturnType<typeof plan>>>();
    for (const n of [4, 2, 1])
      made.set(n, await plan(device, convolutions(n), { weights, weightDtype: 'f32', pool }));
    expect(pool.bytes()).toBe(made.get(4)!.bytes);
    const sample = randomValues(SAMPLE);
    const staging: { n: number; bytes: Promise<ArrayBuffer> }[] = [];
    for (const n of [1, 4, 2, 1]) {
      const { inputs, outputs, encode } = made.get(n)!;
      const x = inputs.get('x')!;
      device.gpu.queue.writeBuffer(x.buffer, x.offset, repeated(sample, n));
      submit(device, (pass) => encode(pass));
      staging.push({ n, bytes: readBack(device, outputs.get('y')!) });
    }
    const [alone, ...others] = await Promise.all(
      staging.map(async ({ n, bytes }) => ({ n, y: new Float32Array(await bytes) })),
    );
    expect(Math.max(...alone!.y.map(Math.abs))).toBeGreaterThan(0.1);
    for (const { n, y } of others) expect(y).toEqual(repeated(alone!.y, n));
    for (const one of made.values()) one.destroy();
    pool.destroy();
    weights.destroy();
  });
});
