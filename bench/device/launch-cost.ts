// Measures what a launch, a submission and a readback cost on this device.
import { whole } from '../../src/bench/peak-kernels.ts';
import type { Device } from '../../src/kernels/device/device.ts';
import { accumulate, defineKernel } from '../../src/kernels/device/kernel.ts';
import { createStorage, idle, type Launch, prepare, submit } from '../../src/kernels/device/runtime.ts';
import { waitFor } from '../../src/kernels/device/wait.ts';
import { median } from '../../src/numbers.ts';
import { measureEncoded } from './timing.ts';

/** Returns what a launch, a submission and a readback cost, in microseconds, by name. */
export async function launchCost(device: Device): Promise<Record<string, number>> {
  const { gpu } = device;
  const empty = defineKernel({
    name: 'bench.empty',
    bindings: [],
    uniforms: [],
    body: '@compute @workgroup_size(1) fn main() {}',
    grid: [1, 1, 1],
  });
  const one = defineKernel({
    name: 'bench.one',
    bindings: [accumulate('y')],
    uniforms: [],
    body: '@compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) { y[i] = y[i] + 1.0; }',
    grid: [1, 1, 1],
  });
  const y = createStorage(device, 4096);
  const cost: Record<string, number> = {};
  const sequences = [];
  try {
    for (const [name, launch] of [
      ['empty dispatch', { kernel: empty, ranges: [] }],
      ['dependent dispatch', { kernel: one, ranges: [whole(y)] }],
    ] as const) {
      const sequence = await prepare(device, [launch as Launch]);
      sequences.push(sequence);
      const timing = await measureEncoded(device, (pass) => sequence.encode(pass), 1, { sampleMs: 50 });
      if (timing.clock === 'device') cost[`${name}, by the clock of the device`] = 1000 * timing.ms;
      cost[`${name}, by the clock of the host`] = 1000 * timing.wallMs;
      const start = performance.now();
      const encoder = gpu.createCommandEncoder();
      const pass = encoder.beginComputePass();
      for (let i = 0; i < 2000; i++) sequence.encode(pass);
      pass.end();
      const commands = encoder.finish();
      cost[`${name}, to encode`] = (performance.now() - start) / 2;
      gpu.queue.submit([commands]);
      await idle(device);
    }
    const sequence = sequences[1]!;
    const submissions = async (count: number): Promise<number> => {
      const start = performance.now();
      for (let i = 0; i < count; i++) submit(device, (pass) => sequence.encode(pass));
      await idle(device);
      return performance.now() - start;
    };
    await submissions(10);
    cost['one dispatch in a submission of its own'] = (1000 * (await submissions(500))) / 500;

    const staging = gpu.createBuffer({ size: 256, usage: 0x01 | 0x08 });
    const values = new Float32Array(64);
    const roundTrip = async (wait: <T>(promise: Promise<T>) => Promise<T>): Promise<number> => {
      const times: number[] = [];
      for (let i = 0; i < 60; i++) {
        const start = performance.now();
        gpu.queue.writeBuffer(y, 0, values);
        const encoder = gpu.createCommandEncoder();
        const pass = encoder.beginComputePass();
        sequence.encode(pass);
        pass.end();
        encoder.copyBufferToBuffer(y, 0, staging, 0, 256);
        gpu.queue.submit([encoder.finish()]);
        await wait(staging.mapAsync(1));
        staging.getMappedRange();
        staging.unmap();
        times.push(performance.now() - start);
      }
      return 1000 * median(times);
    };
    // The product may let the thread sleep between polls (see wait.ts); Dawn alone polls without a pause.
    cost['write, dispatch and read back 256 bytes, as the product waits'] = await roundTrip((promise) =>
      waitFor(device, promise),
    );
    cost['the same, polling without a pause'] = await roundTrip((promise) => promise);
    staging.destroy();
  } finally {
    for (const sequence of sequences) sequence.destroy();
    y.destroy();
  }
  return cost;
}
