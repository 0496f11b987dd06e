// A plan: a graph at fixed shapes, ready to run on a device. Nodes are fused, memory is shared by liveness, pipelines and
// bind groups are created once, and a run is one compute pass.
//
// Memory: a value is alive from the node that computes it to the last node that reads it. Values that are not alive at the
// same time share a buffer. A value that is too large for a binding is split into ranges of channels. Two values of one dispatch never share one, because WebGPU refuses a buffer that is read and
// written at once. A concatenation costs nothing if its parts can be computed in place: as rows are channel-major, the
// parts are ranges of the whole.

import { OutOfMemoryError } from '../../errors.ts';
import type { GpuComputePass } from '../../host-types.ts';
import type { Capabilities, Device } from '../../kernels/device/device.ts';
import { forPrecision } from '../../kernels/device/for-precision.ts';
import type { Kernel } from '../../kernels/device/kernel.ts';
import type { Routine, Step, WeightDtype } from '../../kernels/device/routine.ts';
import { type Launch, prepare, type Range } from '../../kernels/device/runtime.ts';
import { isHalf, requireF16, type Stored, storedAs } from '../../kernels/device/storage.ts';
import { type Shape, storageBytes } from '../../kernels/device/tensor.ts';
import { sum } from '../../numbers.ts';
import { opOf } from '../ops/table.ts';
import type { Value } from '../ops/value.ts';
import { fuse } from './fuse.ts';
import { type Graph, type Node, shapesOf } from './graph.ts';
import { lastUses, layout } from './layout.ts';
import { type ActivationPool, activationPool } from './pool.ts';
import { ALL_F32, type StoredTypes, storedTypes } from './precision.ts';
import { splitLarge } from './split.ts';
import type { WeightStore } from './weight-store.ts';

export interface PlanOptions {
  readonly weights: WeightStore;
  readonly weightDtype: WeightDtype;
  /** How activations are stored; see `storedTypes`. f16 needs a device with `shader-f16`. Default: f32. */
  readonly precision?: Stored | undefined;
  /**
   * The most bytes that the transformed weights of all convolutions may take on the device. If they would take more, none
   * is kept transformed, which is slower (`compact` in `Conv2dOptions`). Default: 1 GiB, with which small networks are
   * fast, and a network of 860 M parameters takes 1.7 GB as f16 instead of 9 GB.
   */
  readonly transformedBytes?: number;
  /** Memory that the plans of a model share; they then run one after another. Default: the plan has its own memory. */
  readonly pool?: ActivationPool;
  /** Memory of inputs that the caller owns and that plans share, by the names of the inputs. */
  readonly external?: Readonly<Record<string, Range>>;
}

export interface Plan {
  /** The memory in which the caller writes each input before a run. */
  readonly inputs: ReadonlyMap<string, Range>;
  /** The memory that holds each output after a run. */
  readonly outputs: ReadonlyMap<string, Range>;
  readonly launches: readonly Launch[];
  /** Bytes of activations and scratch memory, without the weights. */
  readonly bytes: number;
  encode(pass: GpuComputePass): void;
  destroy(): void;
}

/**
 * Returns an empty list of slots: future buffers, each of which holds values that are not alive at the same time. A slot
 * is as large as its largest value.
 */
function newSlots() {
  const sizes: number[] = [];
  const free = new Set<number>();
  return {
    sizes,
    take(bytes: number): number {
      let best: number | undefined;
      for (const slot of free) {
        if (best === undefined) best = slot;
        const fits = sizes[slot]! >= bytes;
        const bestFits = sizes[best]! >= bytes;
        if (fits === bestFits ? (fits ? sizes[slot]! < sizes[best]! : sizes[slot]! > sizes[best]!) : fits)
          best = slot;
      }
      if (best === undefined) {
        sizes.push(bytes);
        return sizes.length - 1;
      }
      free.delete(best);
      sizes[best] = Math.max(sizes[best]!, bytes);
      return best;
    },
    give(slot: number): void {
      free.add(slot);
    },
  };
}

/**
 * Makes a graph ready to run: `encode` adds a run to a pass, any number of times.
 * @throws OutOfMemoryError if a single value or weight is larger than the device can bind; NoDeviceError if the precision
 * is f16 and the device has no `shader-f16`.
 */
export async function plan(device: Device, traced: Graph, options: PlanOptions): Promise<Plan> {
  const { precision = 'f32' } = options;
  if (precision === 'f16') requireF16(device.capabilities);
  const capabilities = forPrecision(device.capabilities, precision);
  const graph = fuse(splitLarge(traced, capabilities.maxBindingBytes));
  const stored = storedTypes(graph, precision);
  const { locations, views } = layout(graph, capabilities.storageAlignment, { stored });
  const nodes = graph.nodes.filter((node) => !views.has(node));
  const shapes = new Map<number, Shape>();
  for (const value of graph.inputs.values()) shapes.set(value.id, value.shape);
  for (const node of graph.nodes) shapes.set(node.output.id, node.output.shape);

  const bytesOf = (id: number) => storageBytes(shapes.get(id)!, stored(id));
  const rootOf = (value: Value) => locations.get(value.id)!.root;
  const lastUse = lastUses(nodes, graph.outputs, locations);

  const slots = newSlots();
  const slotOf = new Map<number, number>();
  const externals = new Map<number, Range>();
  for (const [name, value] of graph.inputs) {
    const range = options.external?.[name];
    if (range) externals.set(value.id, range);
    else slotOf.set(value.id, slots.take(bytesOf(value.id)));
  }
  const routines = routinesOf(nodes, capabilities, stored, options);
  const scratchSlots = nodes.map((node, i) => {
    const root = rootOf(node.output);
    if (!slotOf.has(root)) slotOf.set(root, slots.take(bytesOf(root)));
    const scratch = Object.entries(routines[i]!.scratch).map(([name, bytes]) => ({
      name,
      bytes,
      slot: slots.take(bytes),
    }));
    for (const { slot } of scratch) slots.give(slot);
    for (const [id, last] of lastUse) {
      const slot = slotOf.get(id);
      if (last === i && slot !== undefined && !isInput(graph, id)) slots.give(slot);
    }
    return scratch;
  });

  const tooLarge = slots.sizes.find((size) => size > capabilities.maxBindingBytes);
  if (tooLarge !== undefined)
    throw new OutOfMemoryError(
      `expected values of at most ${capabilities.maxBindingBytes} bytes, which the device can bind, got one of ${tooLarge}`,
    );
  nodes.forEach((node, i) => {
    for (const [name, constant] of Object.entries(node.constants)) {
      const bytes = routines[i]!.packing[name]?.bytes ?? 4 * constant.length;
      if (bytes > capabilities.maxBindingBytes)
        throw new OutOfMemoryError(
          `expected weights of at most ${capabilities.maxBindingBytes} bytes, which the device can bind, got ${constant.name} of ${bytes}`,
        );
    }
  });
  const own = options.pool ? undefined : activationPool(device);
  const buffers = (options.pool ?? own!).take(slots.sizes);
  const rangeOf = (value: Value): Range => {
    const { root, offset } = locations.get(value.id)!;
    const external = externals.get(root);
    if (external)
      return { buffer: external.buffer, offset: external.offset + offset, size: external.size - offset };
    return { buffer: buffers[slotOf.get(root)!]!, offset, size: bytesOf(value.id) };
  };
  const held = new Map<string, Range>();
  for (const [i, node] of nodes.entries())
    for (const [name, constant] of Object.entries(node.constants))
      held.set(`${i} ${name}`, await options.weights.get(constant, routines[i]!.packing[name]));
  const untuned = nodes.flatMap((node, i): Launch[] =>
    routines[i]!.steps.map(({ kernel, operands }) => ({
      kernel: converted(node, { kernel, operands }, stored),
      ranges: operands.map((name): Range => {
        if (name === 'y') return rangeOf(node.output);
        const value = node.inputs[name];
        if (value) return rangeOf(value);
        const constant = held.get(`${i} ${name}`);
        if (constant) return constant;
        const scratch = scratchSlots[i]!.find((entry) => entry.name === name);
        if (!scratch) throw new Error(`${kernel.name} binds ${name}, which ${node.op} does not have`);
        return { buffer: buffers[scratch.slot]!, offset: 0, size: Math.ceil(scratch.bytes / 16) * 16 };
      }),
    })),
  );
  const launches = (await device.tune?.(untuned)) ?? untuned;
  const sequence = await prepare(device, launches);
  return {
    inputs: new Map([...graph.inputs].map(([name, value]) => [name, rangeOf(value)])),
    outputs: new Map([...graph.outputs].map(([name, value]) => [name, rangeOf(value)])),
    launches,
    bytes: sum(slots.sizes),
    encode: (pass) => sequence.encode(pass),
    destroy() {
      sequence.destroy();
      own?.destroy();
    },
  };
}

const TRANSFORMED_BYTES = 2 ** 30;

/** Chooses the kernels of a node for a device; `compact` as in `Conv2dOptions`. */
export const forward = (
  node: Node,
  capabilities: Capabilities,
  weights: WeightDtype,
  compact = false,
  stored: StoredTypes = ALL_F32,
): Routine => opOf(node).forward(capabilities, shapesOf(node, stored), node.attributes, weights, compact);

/** Returns the kernel of a step, rewritten to read and write the inputs and the output of its node as they are stored. */
function converted(node: Node, { kernel, operands }: Step, stored: StoredTypes): Kernel {
  const halves: string[] = [];
  for (const [i, { name, element }] of kernel.bindings.entries()) {
    const value = operands[i] === 'y' ? node.output : node.inputs[operands[i]!];
    if (!value) continue;
    if (stored(value.id) === 'f16') halves.push(name);
    else if (isHalf(element))
      throw new Error(
        `${kernel.name} binds ${name} as f16, but ${operands[i]} of ${node.op} is stored as f32`,
      );
  }
  return storedAs(kernel, halves);
}

/** Chooses the kernels of every node, within the budget for transformed weights. */
function routinesOf(
  nodes: readonly Node[],
  capabilities: Capabilities,
  stored: StoredTypes,
  options: PlanOptions,
): Routine[] {
  const { weightDtype, transformedBytes = TRANSFORMED_BYTES } = options;
  const fast = nodes.map((node) => forward(node, capabilities, weightDtype, false, stored));
  const bytes = new Map<string, number>();
  nodes.forEach((node, i) => {
    const { weight } = node.constants;
    if (weight && opOf(node).transformsWeight) bytes.set(weight.name, fast[i]!.packing.weight!.bytes);
  });
  const total = sum(bytes.values());
  return total <= transformedBytes
    ? fast
    : nodes.map((node) => forward(node, capabilities, weightDtype, true, stored));
}

const isInput = (graph: Graph, id: number): boolean =>
  [...graph.inputs.values()].some((value) => value.id === id);
