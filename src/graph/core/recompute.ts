// Trades time for memory in the backward pass: decides which values of the forward pass are kept for the gradients, and
// which are recomputed from others when the gradients need them (Chen et al. 2016, "Training deep nets with sublinear
// memory cost"). To recompute a value, its node is cloned in front of the first node that reads it, together with the
// nodes that it depends on.

import { storageBytes } from '../../kernels/device/tensor.ts';
import { opOf } from '../ops/table.ts';
import type { Value } from '../ops/value.ts';
import { flopOf } from './cost.ts';
import { fuse, inLoadsOf, needed, readers } from './fuse.ts';
import type { Graph, Node } from './graph.ts';
import { layout } from './layout.ts';

/** The nodes of both passes. */
interface Passes {
  readonly forward: readonly Node[];
  readonly backward: readonly Node[];
  /** Ids of the values of the forward pass that the backward pass reads, or that are outputs. */
  readonly read: ReadonlySet<number>;
  readonly outputs: Graph['outputs'];
}

/** Ids of the values of the forward pass that are kept in memory. */
type Kept = ReadonlySet<number>;

/** Returns the nodes of both passes, with clones of what is not kept, and the operations that the clones take. */
function rebuilt(graph: Graph, { forward, backward }: Passes, kept: Kept): { nodes: Node[]; flop: number } {
  const makers = new Map(forward.map((node) => [node.output.id, node]));
  const nodes: Node[] = [...forward];
  const clones = new Map<number, Value>();
  let values = graph.values;
  let flop = 0;
  const from = (value: Value): Value => {
    const maker = makers.get(value.id);
    if (!maker || kept.has(value.id)) return value;
    const found = clones.get(value.id);
    if (found) return found;
    const inputs = replaced(maker);
    const output = { id: values++, shape: value.shape };
    clones.set(value.id, output);
    nodes.push({ ...maker, inputs, output } as Node);
    flop += flopOf(maker);
    return output;
  };
  const replaced = ({ inputs }: Node) =>
    Object.fromEntries(Object.entries(inputs).map(([name, value]) => [name, from(value)]));
  for (const node of backward) {
    const inputs = replaced(node);
    nodes.push({ ...node, inputs } as Node);
  }
  return { nodes, flop };
}

/**
 * Returns the values that the gradients need but that never exist in memory in the forward pass, because `fuse` leaves
 * only the rows of their norms.
 */
function appliedInLoads({ forward, read, outputs }: Passes): Set<number> {
  const kept = new Set([...outputs.values()].map(({ id }) => id));
  const use = readers(forward);
  const found = forward.filter(
    (node) =>
      read.has(node.output.id) &&
      !kept.has(node.output.id) &&
      inLoadsOf(node, use.get(node.output.id))?.rows !== undefined,
  );
  return new Set(found.map(({ output }) => output.id));
}

/** Removes from the given values the outputs of cheap ops whose inputs are kept anyway. */
function withoutCheap({ forward, read, outputs }: Passes, given: ReadonlySet<number>): Set<number> {
  const left = new Set(given);
  const made = new Set(forward.map(({ output }) => output.id));
  for (const { id } of outputs.values()) made.delete(id);
  for (const node of forward) {
    const { inputs, output } = node;
    if (!opOf(node).cheap || !left.has(output.id) || !made.has(output.id)) continue;
    if (Object.values(inputs).every(({ id }) => !made.has(id) || read.has(id))) left.delete(output.id);
  }
  return left;
}

/** A range of nodes of the forward pass that is recomputed as a whole. */
interface Segment {
  readonly from: number;
  readonly to: number;
}

/**
 * Returns the bytes of the values that cross each position, that is, are made before this node and read by it or a later
 * node of the forward pass. A segment that begins there is recomputed from these values; `at` returns their ids.
 */
function crossing(forward: readonly Node[]): { bytes: number[]; at: (position: number) => number[] } {
  const span = new Map<number, { first: number; last: number; bytes: number }>();
  forward.forEach(({ inputs, output }, i) => {
    for (const { id } of Object.values(inputs)) {
      const own = span.get(id);
      if (own) own.last = i;
    }
    span.set(output.id, { first: i, last: i, bytes: storageBytes(output.shape) });
  });
  const bytes = forward.map(() => 0);
  for (const { first, last, bytes: size } of span.values())
    for (let i = first + 1; i <= last; i++) bytes[i]! += size;
  const at = (position: number) =>
    [...span].filter(([, { first, last }]) => first < position && last >= position).map(([id]) => id);
  return { bytes, at };
}

/** Cuts the forward pass into segments of about `quota` bytes of kept values, each cut where the fewest bytes cross. */
function segmentsOf(
  forward: readonly Node[],
  kept: Kept,
  quota: number,
  bytes: readonly number[],
): Segment[] {
  const segments: Segment[] = [];
  let from = 0;
  let held = 0;
  let best = 0;
  forward.forEach(({ output }, i) => {
    if (kept.has(output.id)) held += storageBytes(output.shape);
    if (held < quota / 2) return;
    if (best <= from || bytes[i + 1]! < bytes[best]!) best = i + 1;
    if (held < quota || i + 1 >= forward.length) return;
    segments.push({ from, to: best });
    from = best;
    held = 0;
    for (let k = from; k <= i; k++)
      if (kept.has(forward[k]!.output.id)) held += storageBytes(forward[k]!.output.shape);
  });
  if (from < forward.length) segments.push({ from, to: forward.length });
  return segments;
}

/** The sizes of segments that are tried, as shares of the bytes that would be kept without segments. */
const SHARES = [1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 8, 1 / 12, 1 / 16, 1 / 32];

/**
 * Rewrites a differentiated graph, whose first `length` nodes are the forward pass, so that at most `bytes` of
 * activations are alive at once, or as few as possible. It first recomputes the outputs of cheap ops, then segments of
 * the forward pass, as few as suffice. `outputs` are values that are read after the run, next to the graph's own outputs.
 */
export function recompute(
  graph: Graph,
  length: number,
  outputs: readonly Value[],
  bytes = Number.POSITIVE_INFINITY,
): void {
  const results = new Map([...graph.outputs, ...outputs.map((value) => [`${value.id}`, value] as const)]);
  const forward = graph.nodes.slice(0, length);
  const first = new Set(forward);
  const backward = needed({ ...graph, outputs: results }).filter((node) => !first.has(node));
  const made = new Set(forward.map(({ output }) => output.id));
  const read = new Set(
    [...backward.flatMap(({ inputs }) => Object.values(inputs)), ...results.values()]
      .map(({ id }) => id)
      .filter((id) => made.has(id)),
  );
  const passes: Passes = { forward, backward, read, outputs: results };

  const measured = (kept: Kept) => {
    const found = rebuilt(graph, passes, kept);
    const values = graph.values + found.nodes.length;
    const whole = { ...graph, nodes: found.nodes, outputs: results, values };
    return { ...found, peak: layout(fuse(whole), 4, { rough: true }).peakBytes };
  };
  type Measured = ReturnType<typeof measured>;
  let best: Measured | undefined;
  const offer = (candidate: Measured): boolean => {
    const fits = candidate.peak <= bytes;
    const better =
      !best || (fits ? best.peak > bytes || candidate.flop < best.flop : candidate.peak < best.peak);
    if (better) best = candidate;
    return fits;
  };

  const applied = appliedInLoads(passes);
  const usual = new Set([...read].filter((id) => !applied.has(id)));
  const thrifty = withoutCheap(passes, usual);
  if (!offer(measured(usual)) && !offer(measured(thrifty))) {
    const { bytes: across, at } = crossing(forward);
    const total = forward.reduce(
      (sum, { output }) => sum + (thrifty.has(output.id) ? storageBytes(output.shape) : 0),
      0,
    );
    for (const share of SHARES) {
      const segments = segmentsOf(forward, thrifty, share * total, across);
      const keptWith = (count: number): Kept => {
        const kept = new Set(thrifty);
        for (const { from, to } of segments.slice(0, count))
          for (const { output } of forward.slice(from, to)) kept.delete(output.id);
        for (const { from } of segments.slice(0, count)) for (const id of at(from)) kept.add(id);
        const end = segments[count - 1];
        if (end) for (const id of at(end.to)) if (thrifty.has(id)) kept.add(id);
        for (const { id } of results.values()) kept.add(id);
        return kept;
      };
      // Recompute as few segments as suffice, from the beginning of the network: their values would be kept longest.
      let [low, high] = [1, segments.length];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (offer(measured(keptWith(middle)))) high = middle;
        else low = middle + 1;
      }
      offer(measured(keptWith(low)));
    }
  }
  const { nodes } = best!;
  graph.nodes.splice(0, graph.nodes.length, ...nodes);
  graph.values += nodes.length;
}
