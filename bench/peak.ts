// What a device reaches without a kernel's burdens, as the yardstick of kernel timings.

import type { Capabilities, Device } from '../src/kernels/device/device.ts';
import { walk } from '../src/kernels/device/indexing.ts';
import { defineKernel, type Kernel, read, write } from '../src/kernels/device/kernel.ts';
import { createStorage } from '../src/kernels/device/runtime.ts';
import { time } from '../src/kernels/device/time.ts';

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
