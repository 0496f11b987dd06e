// Timing launches on a device: medians over repetitions, each long enough to measure.

import { availableParallelism } from 'node:os';
import type { Capabilities, Device } from '../src/kernels/device.ts';
import { walk } from '../src/kernels/indexing.ts';
import { defineKernel, type Kernel, read, write } from '../src/kernels/kernel.ts';
import { createStorage, idle, type Launch, prepare, submit } from '../src/kernels/runtime.ts';

export interface Timing {
  /** Median of a run's wall time in milliseconds. */
  readonly ms: number;
  /**
   * What the median would be were nothing else running: on a software adapter the processor time of this process
   * over the number of cores, elsewhere the wall time.
   */
  readonly aloneMs: number;
  /** The first run with its compilation. */
  readonly firstMs: number;
}

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1]!;

const cpuMs = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

/** Runs the launches often enough for a repetition to last `repetitionMs`, `repetitions` times. */
export async function time(
  device: Device,
  launches: readonly Launch[],
  repetitions: number,
  repetitionMs = 25,
): Promise<Timing> {
  const start = performance.now();
  const sequence = await prepare(device, launches);
  const run = async (count: number): Promise<readonly [wall: number, cpu: number]> => {
    const [wall, cpu] = [performance.now(), cpuMs()];
    submit(device, (pass) => {
      for (let i = 0; i < count; i++) sequence.encode(pass);
    });
    await idle(device);
    return [(performance.now() - wall) / count, (cpuMs() - cpu) / count];
  };
  await run(1);
  const firstMs = performance.now() - start;
  const [once] = await run(1);
  const count = Math.max(1, Math.min(1000, Math.ceil(repetitionMs / once)));
  const times: (readonly [number, number])[] = [];
  for (let r = 0; r < repetitions; r++) times.push(await run(count));
  sequence.destroy();
  const ms = median(times.map(([wall]) => wall));
  const aloneMs = device.capabilities.software
    ? median(times.map(([, cpu]) => cpu)) / availableParallelism()
    : ms;
  return { ms, aloneMs, firstMs };
}

/** 16 independent chains of products in registers. */
function fmaKernel(): { kernel: Kernel; flops: number } {
  const [chains, depth, turns, groups] = [16, 8, 64, 256];
  const names = Array.from({ length: chains }, (_, i) => `c${i}`);
  const body = /* wgsl */ `
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let a = x[0] * 0.5;
  let b = x[1];
  ${names.map((c, i) => `var ${c} = b * ${i}.0;`).join(' ')}
  for (var turn = 0u; turn < ${turns}u; turn++) {
    ${names.map((c) => `${c} = ${'fma(a, '.repeat(depth)}${c}${', b)'.repeat(depth)};`).join('\n    ')}
  }
  y[id.x] = ${names.join(' + ')};
}
`;
  const kernel = defineKernel({
    name: 'bench.fma',
    bindings: [read('x', 'vec4f'), write('y', 'vec4f')],
    uniforms: [],
    body,
    grid: [groups, 1, 1],
  });
  return { kernel, flops: groups * 64 * turns * depth * chains * 4 * 2 };
}

function copyKernel(capabilities: Capabilities, vectors: number): Kernel {
  const { main, uniforms, grid } = walk(capabilities, vectors);
  return defineKernel({
    name: 'bench.copy',
    bindings: [read('x', 'vec4f'), write('y', 'vec4f')],
    uniforms,
    body: main('y[i] = x[i];'),
    grid,
  });
}

export interface Peak {
  readonly gflops: number;
  readonly gbytes: number;
}

/** What the device reaches without a kernel's burdens: products in registers, and a copy of 32 MiB. */
export async function measurePeak(device: Device, repetitions: number): Promise<Peak> {
  const size = 32 * 2 ** 20;
  const [x, y] = [createStorage(device, size), createStorage(device, size)];
  const ranges = [x, y].map((buffer) => ({ buffer, offset: 0, size }));
  const { kernel, flops } = fmaKernel();
  const products = await time(device, [{ kernel, ranges }], repetitions);
  const copies = await time(
    device,
    [{ kernel: copyKernel(device.capabilities, size / 16), ranges }],
    repetitions,
  );
  x.destroy();
  y.destroy();
  return { gflops: flops / products.aloneMs / 1e6, gbytes: (2 * size) / copies.aloneMs / 1e6 };
}
