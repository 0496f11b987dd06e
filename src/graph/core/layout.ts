// Decides, before any memory is allocated, which values are ranges of other values, and how much memory is alive at once.

import { STORED_BYTES, type Stored } from '../../kernels/device/storage.ts';
import { pitch, type Shape, storageBytes } from '../../kernels/device/tensor.ts';
import { opOf } from '../ops/table.ts';
import type { Value } from '../ops/value.ts';
import type { Graph, Node } from './graph.ts';
import { ALL_F32, type StoredTypes } from './precision.ts';

/** The storage of a value: bytes into the storage of the value `root`, which may be the value itself. */
interface ValueLocation {
  readonly root: number;
  readonly offset: number;
}

/** The locations of all values, and the nodes that need not run because their outputs are views of other values. */
interface Layout {
  readonly locations: ReadonlyMap<number, ValueLocation>;
  readonly views: ReadonlySet<Node>;
  /** The largest number of bytes of node outputs that are alive at once, without the kernels' scratch memory. */
  readonly peakBytes: number;
}

const rowBytes = (shape: Shape, rows: number, stored: Stored): number =>
  rows * pitch(shape) * STORED_BYTES[stored];

/**
 * Places slices, and the parts of concatenations, in the memory of their whole, except for the nodes in `excluded`. Values
 * that share memory have one type.
 */
function layOver(
  graph: Graph,
  alignment: number,
  stored: StoredTypes,
  excluded: ReadonlySet<Node>,
): Pick<Layout, 'locations' | 'views'> {
  const parents = new Map<number, { of: number; offset: number }>();
  const views = new Set<Node>();
  const kept = new Set([...graph.inputs.values(), ...graph.outputs.values()].map((value) => value.id));
  for (const node of graph.nodes) {
    if (excluded.has(node)) continue;
    const op = opOf(node);
    const first = op.firstChannel?.(node.attributes);
    if (first !== undefined) {
      const x = node.inputs.x!;
      const offset = rowBytes(x.shape, first, stored(x.id));
      if (offset % alignment !== 0 || kept.has(node.output.id)) continue;
      if (stored(x.id) !== stored(node.output.id)) continue;
      parents.set(node.output.id, { of: x.id, offset });
      views.add(node);
    } else if (op.joinsInputs) {
      const parts = Object.values(node.inputs);
      let rows = 0;
      const offsets = parts.map((part) => {
        const offset = rowBytes(part.shape, rows, stored(node.output.id));
        rows += part.shape[0];
        return offset;
      });
      const distinct = new Set(parts.map((part) => part.id)).size === parts.length;
      const free = parts.every(
        ({ id }) => !kept.has(id) && !parents.has(id) && stored(id) === stored(node.output.id),
      );
      if (!distinct || !free || offsets.some((offset) => offset % alignment !== 0)) continue;
      parts.forEach((part, i) => {
        parents.set(part.id, { of: node.output.id, offset: offsets[i]! });
      });
      views.add(node);
    }
  }
  const locations = new Map<number, ValueLocation>();
  for (const { id } of valuesOf(graph)) {
    let root = id;
    let offset = 0;
    for (let up = parents.get(root); up; up = parents.get(root)) {
      offset += up.offset;
      root = up.of;
    }
    locations.set(id, { root, offset });
  }
  return { locations, views };
}

const valuesOf = ({ inputs, nodes }: Graph): Value[] => [
  ...inputs.values(),
  ...nodes.map(({ output }) => output),
];

/** Returns the layout with as many views as possible without a dispatch that reads and writes the same buffer. */
function withoutClashes(
  graph: Graph,
  alignment: number,
  stored: StoredTypes,
  given: ReadonlySet<Node>,
): Pick<Layout, 'locations' | 'views'> {
  const excluded = new Set(given);
  for (;;) {
    const found = layOver(graph, alignment, stored, excluded);
    const rootOf = (value: Value) => found.locations.get(value.id)!.root;
    const clash = graph.nodes.find(
      (node) =>
        !found.views.has(node) &&
        Object.values(node.inputs).some((value) => rootOf(value) === rootOf(node.output)),
    );
    if (!clash) return found;
    // The concatenation that put the clashing output into one buffer with its own input copies instead.
    const whole = [...found.views].find(
      (node) => opOf(node).joinsInputs && rootOf(node.output) === rootOf(clash.output) && !excluded.has(node),
    );
    if (!whole) throw new Error(`${clash.op}: no layout without a buffer both read and written`);
    excluded.add(whole);
  }
}

/** Returns the concatenations with a part that is read later than the whole: as a view, the part keeps the whole alive. */
function outlived({ nodes }: Graph): Node[] {
  const last = new Map<number, number>();
  nodes.forEach((node, i) => {
    for (const { id } of Object.values(node.inputs)) last.set(id, i);
  });
  const end = ({ id }: Value) => last.get(id) ?? Number.POSITIVE_INFINITY;
  return nodes.filter(
    (node) =>
      opOf(node).joinsInputs && Object.values(node.inputs).some((part) => end(part) > end(node.output)),
  );
}

/** Returns the last node that uses the storage of each root. The storage of the graph's outputs is used until the end. */
export function lastUses(
  nodes: readonly Node[],
  outputs: Graph['outputs'],
  locations: Layout['locations'],
): Map<number, number> {
  const rootOf = ({ id }: Value) => locations.get(id)!.root;
  const last = new Map<number, number>();
  nodes.forEach((node, i) => {
    for (const value of [...Object.values(node.inputs), node.output]) last.set(rootOf(value), i);
  });
  for (const value of outputs.values()) last.set(rootOf(value), Number.POSITIVE_INFINITY);
  return last;
}

function peakOf(
  graph: Graph,
  stored: StoredTypes,
  { locations, views }: Pick<Layout, 'locations' | 'views'>,
): number {
  const nodes = graph.nodes.filter((node) => !views.has(node));
  const shapes = new Map(valuesOf(graph).map(({ id, shape }) => [id, shape]));
  const bytesOf = (id: number) => storageBytes(shapes.get(id)!, stored(id));
  const given = new Set([...graph.inputs.values()].map(({ id }) => id));
  const ending = nodes.map((): number[] => []);
  for (const [root, i] of lastUses(nodes, graph.outputs, locations)) ending[i]?.push(root);
  const alive = new Set<number>();
  let bytes = 0;
  let peak = 0;
  nodes.forEach((node, i) => {
    const { root } = locations.get(node.output.id)!;
    if (!alive.has(root) && !given.has(root)) {
      alive.add(root);
      bytes += bytesOf(root);
    }
    peak = Math.max(peak, bytes);
    for (const over of ending[i]!) if (alive.delete(over)) bytes -= bytesOf(over);
  });
  return peak;
}

/**
 * Lays out a fused graph. Slices and the parts of concatenations are ranges of their whole if the alignment allows it and
 * no dispatch would read and write the same buffer. A concatenation is copied if that takes less memory: this is tried
 * for each candidate in turn. A `rough` layout, which is for comparisons, copies either all candidates or none.
 */
export function layout(
  graph: Graph,
  alignment: number,
  { rough = false, stored = ALL_F32 }: { readonly rough?: boolean; readonly stored?: StoredTypes } = {},
): Layout {
  const measured = (excluded: ReadonlySet<Node>): Layout => {
    const found = withoutClashes(graph, alignment, stored, excluded);
    return { ...found, peakBytes: peakOf(graph, stored, found) };
  };
  const whole = measured(new Set());
  const excluded = new Set(outlived(graph));
  if (excluded.size === 0) return whole;
  let best = measured(excluded);
  for (const node of rough ? [] : [...excluded]) {
    excluded.delete(node);
    const tried = measured(excluded);
    if (tried.peakBytes <= best.peakBytes) best = tried;
    else excluded.add(node);
  }
  return whole.peakBytes <= best.peakBytes ? whole : best;
}
