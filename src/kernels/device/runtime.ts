// Executes kernels on a device. A pipeline is compiled once per kernel text, a bind group is made once per launch.

import { DeviceLostError, OutOfMemoryError } from '../../errors.ts';
import type { GpuBuffer, GpuComputePass, GpuDevice } from '../../host-types.ts';
import type { Device } from './device.ts';
import { type Binding, type Kernel, uniformBytes } from './kernel.ts';
import type { Launch, Range } from './launch.ts';
import { waitFor } from './wait.ts';

export type { Launch, Range } from './launch.ts';

/** Prepared launches: encoding one takes three calls and allocates nothing. */
export interface Sequence {
  readonly launches: readonly Launch[];
  encode(pass: GpuComputePass, from?: number, to?: number): void;
  destroy(): void;
}

interface Compiled {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

interface Cache {
  readonly pipelines: Map<string, Promise<Compiled>>;
  readonly layouts: Map<string, GPUBindGroupLayout>;
  /** Kernel texts that the driver has compiled. */
  readonly compiled: Set<string>;
}

const caches = new WeakMap<GPUDevice, Cache>();

function cacheOf(gpu: GpuDevice): Cache {
  let cache = caches.get(gpu);
  if (!cache) {
    cache = { pipelines: new Map(), layouts: new Map(), compiled: new Set() };
    caches.set(gpu, cache);
  }
  return cache;
}

const storageType = ({ access }: Binding): GPUBufferBindingType =>
  access === 'read' ? 'read-only-storage' : 'storage';

function layoutOf(gpu: GpuDevice, kernel: Kernel): GPUBindGroupLayout {
  const { layouts } = cacheOf(gpu);
  const types: GPUBufferBindingType[] = kernel.bindings.map(storageType);
  if (kernel.uniforms.length > 0) types.push('uniform');
  const key = types.join();
  let layout = layouts.get(key);
  if (!layout) {
    const visibility = 4; // GPUShaderStage.COMPUTE
    layout = gpu.createBindGroupLayout({
      entries: types.map((type, binding) => ({ binding, visibility, buffer: { type } })),
    });
    layouts.set(key, layout);
  }
  return layout;
}

/** Returns the pipeline of a kernel's text, compiled once per device. An error in the text names the kernel. */
function pipelineOf(gpu: GpuDevice, kernel: Kernel): Promise<Compiled> {
  const { pipelines } = cacheOf(gpu);
  let compiled = pipelines.get(kernel.wgsl);
  if (!compiled) {
    compiled = build(gpu, kernel);
    pipelines.set(kernel.wgsl, compiled);
  }
  return compiled;
}

/** Begins to compile a kernel's text; launches of the kernel wait for it. */
export const compile = async (gpu: GpuDevice, kernel: Kernel): Promise<void> => {
  await pipelineOf(gpu, kernel);
};

async function build(gpu: GpuDevice, kernel: Kernel): Promise<Compiled> {
  const { name: label } = kernel;
  const layout = layoutOf(gpu, kernel);
  const module = gpu.createShaderModule({ label, code: kernel.wgsl });
  const pipeline = await gpu.createComputePipelineAsync({
    label,
    layout: gpu.createPipelineLayout({ bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: 'main' },
  });
  return { pipeline, layout };
}

const reportProgress = ({ gpu, onCompile }: Device): void => {
  const { pipelines, compiled } = cacheOf(gpu);
  onCompile?.({ done: compiled.size, total: pipelines.size });
};

/**
 * Makes the driver compile the pipelines that it has not compiled yet. Mesa's software driver compiles at a pipeline's
 * first dispatch and not at its creation (20 s of a small network's first run). A dispatch of zero workgroups therefore
 * compiles the pipeline and computes nothing. It is an indirect one because Dawn warns about a direct one.
 */
async function compileNow(
  device: Device,
  launches: readonly Launch[],
  compiled: readonly Compiled[],
  groups: readonly GPUBindGroup[],
): Promise<void> {
  const { gpu } = device;
  const known = cacheOf(gpu).compiled;
  const fresh = new Map(launches.map(({ kernel }, i) => [kernel.wgsl, i] as const));
  for (const wgsl of known) fresh.delete(wgsl);
  if (fresh.size === 0) return;
  reportProgress(device);
  const nothing = gpu.createBuffer({ label: 'no workgroups', size: 12, usage: 0x100 }); // INDIRECT; zeros
  const pending = [...fresh].map(async ([wgsl, i]) => {
    submit(device, (pass) => {
      pass.setPipeline(compiled[i]!.pipeline);
      pass.setBindGroup(0, groups[i]!);
      pass.dispatchWorkgroupsIndirect(nothing, 0);
    });
    await idle(device);
    known.add(wgsl);
    reportProgress(device);
  });
  try {
    await Promise.all(pending);
  } finally {
    nothing.destroy();
  }
}

/**
 * Compiles the launches' new pipelines and makes uniform buffer and bind groups. Rejects if a kernel's text
 * has an error.
 */
export async function prepare(device: Device, launches: readonly Launch[]): Promise<Sequence> {
  const { gpu } = device;
  const compiled = await waitFor(device, Promise.all(launches.map(({ kernel }) => pipelineOf(gpu, kernel))));
  const align = gpu.limits.minUniformBufferOffsetAlignment;
  const offsets: number[] = [];
  let bytes = 0;
  for (const { kernel } of launches) {
    offsets.push(bytes);
    bytes += Math.ceil((kernel.uniforms.length * 4) / align) * align;
  }
  const uniforms = gpu.createBuffer({ label: 'uniforms', size: Math.max(bytes, 16), usage: 0x40 | 0x08 }); // UNIFORM | COPY_DST
  const staged = new Uint8Array(Math.max(bytes, 16));
  const groups = launches.map(({ kernel, ranges }, i) => {
    if (ranges.length !== kernel.bindings.length)
      throw new Error(`${kernel.name}: expected ${kernel.bindings.length} ranges, got ${ranges.length}`);
    const entries: GPUBindGroupEntry[] = ranges.map((resource, binding) => ({ binding, resource }));
    if (kernel.uniforms.length > 0) {
      const block = new Uint8Array(uniformBytes(kernel.uniforms));
      staged.set(block, offsets[i]);
      entries.push({
        binding: ranges.length,
        resource: { buffer: uniforms, offset: offsets[i]!, size: block.byteLength },
      });
    }
    return gpu.createBindGroup({ label: kernel.name, layout: compiled[i]!.layout, entries });
  });
  gpu.queue.writeBuffer(uniforms, 0, staged);
  await compileNow(device, launches, compiled, groups);
  return {
    launches,
    encode(pass, from = 0, to = launches.length) {
      for (let i = from; i < to; i++) {
        pass.setPipeline(compiled[i]!.pipeline);
        pass.setBindGroup(0, groups[i]!);
        pass.dispatchWorkgroups(...launches[i]!.kernel.grid);
      }
    },
    destroy: () => uniforms.destroy(),
  };
}

/** Submits one command buffer with one compute pass. */
export function submit(device: Device, encode: (pass: GpuComputePass) => void): void {
  const encoder = device.gpu.createCommandEncoder();
  const pass = encoder.beginComputePass();
  encode(pass);
  pass.end();
  device.gpu.queue.submit([encoder.finish()]);
}

/** Resolves when all submitted work has finished; see wait.ts for what the thread does meanwhile. */
export async function idle(device: Device): Promise<void> {
  await waitFor(device, device.gpu.queue.onSubmittedWorkDone());
  if (device.isLost()) throw new DeviceLostError('the device was lost');
}

/**
 * Makes a storage buffer that can also be the source and target of copies. Its bytes are those of `data`, or
 * zero. Use `withMemoryCheck` to detect that the device ran out of memory.
 */
export function createStorage(
  device: Device,
  size: number,
  data?: ArrayBufferView<ArrayBuffer>,
  label = 'storage',
): GpuBuffer {
  const usage = 0x80 | 0x08 | 0x04; // STORAGE | COPY_DST | COPY_SRC
  const buffer = device.gpu.createBuffer({ label, size: Math.max(16, Math.ceil(size / 16) * 16), usage });
  if (data) device.gpu.queue.writeBuffer(buffer, 0, data.buffer, data.byteOffset, data.byteLength);
  return buffer;
}

/**
 * Makes a storage buffer whose first `size` bytes `fill` writes into mapped memory, which is zero at first.
 * JavaScript holds no copy of them.
 * @throws OutOfMemoryError if the device has too little memory.
 */
export async function createFilled(
  device: Device,
  size: number,
  fill: (mapped: ArrayBuffer) => Promise<void>,
  label = 'storage',
): Promise<GpuBuffer> {
  const usage = 0x80 | 0x08 | 0x04; // STORAGE | COPY_DST | COPY_SRC
  const rounded = Math.max(16, Math.ceil(size / 16) * 16);
  let buffer: GpuBuffer;
  try {
    buffer = device.gpu.createBuffer({ label, size: rounded, usage, mappedAtCreation: true });
  } catch (cause) {
    throw new OutOfMemoryError(`the device has too little memory for ${label} of ${size} bytes`, { cause });
  }
  try {
    await fill(buffer.getMappedRange());
  } catch (error) {
    buffer.destroy();
    throw error;
  }
  buffer.unmap();
  return buffer;
}

/** Runs `make`, and rejects with `OutOfMemoryError` if the device runs out of memory meanwhile. */
export async function withMemoryCheck<T>(device: Device, make: () => Promise<T> | T): Promise<T> {
  device.gpu.pushErrorScope('out-of-memory');
  let value: T | undefined;
  let failure: unknown;
  try {
    value = await make();
  } catch (error) {
    failure = error;
  }
  const error = await waitFor(device, device.gpu.popErrorScope());
  if (error) throw new OutOfMemoryError(`the device ran out of memory: ${error.message}`);
  if (failure !== undefined) throw failure;
  return value as T;
}

/** Copies bytes of a buffer back to the host. */
export async function readBack(device: Device, { buffer, offset, size }: Range): Promise<ArrayBuffer> {
  const staging = device.gpu.createBuffer({ label: 'staging', size, usage: 0x01 | 0x08 }); // MAP_READ | COPY_DST
  const encoder = device.gpu.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, offset, staging, 0, size);
  device.gpu.queue.submit([encoder.finish()]);
  try {
    await waitFor(device, staging.mapAsync(1)); // GPUMapMode.READ
  } catch (cause) {
    throw new DeviceLostError('the device was lost while its results were read', { cause });
  }
  const bytes = staging.getMappedRange().slice(0);
  staging.destroy();
  return bytes;
}
