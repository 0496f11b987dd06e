// Where values lie, before any memory is made: what is a range of another value, and how much is alive at once.

import { pitch, type Shape, storageBytes } from '../../kernels/device/tensor.ts';
import type { Value } from '../ops/value.ts';
import type { Graph, Node } from './graph.ts';

/** A value's place: bytes into the storage of another value, or of itself. */
export interface Place {
  readonly root: number;
  readonly offset: number;
}

/** Where every value lies, and which nodes are only views and need not run. */
export interface Layout {
  readonly places: ReadonlyMap<number, Place>;
  readonly views: ReadonlySet<Node>;
  /** Most bytes alive at once of what nodes make; kernels' scratch comes on top. */
  readonly peakBytes: number;
}

const rowBytes = (shape: Shape, rows: number): number => rows * pitch(shape) * 4;

/** Lays slices and concatenations over the memory of their whole, except those in `excluded`. */
function layOver(
  graph: Graph,
  alignment: number,
  excluded: ReadonlySet<Node>,
): Pick<Layout, 'places' | 'views'> {
  const parents = new Map<number, { of: number; offset: number }>();
  const views = new Set<Node>();
  const kept = new Set([...graph.inputs.values(), ...graph.outputs.values()].map((value) => value.id));
  for (const node of graph.nodes) {
    if (excluded.has(node)) continue;
    if (node.op === 'slice') {
      const x = node.inputs.x!;
      const offset = rowBytes(x.shape, node.attributes.from);
      if (offset % alignment !== 0 || kept.has(node.output.id)) continue;
      parents.set(node.output.id, { of: x.id, offset });
      views.add(node);
    } else if (node.op === 'concat') {
      const parts = Object.values(node.inputs);
      let rows = 0;
      const offsets = parts.map((part) => {
        const offset = rowBytes(part.shape, rows);
        rows += part.shape[0];
        return offset;
      });
      const distinct = new Set(parts.map((part) => part.id)).size === parts.length;
      const free = parts.every((part) => !kept.has(part.id) && !parents.has(part.id));
      if (!distinct || !free || offsets.some((offset) => offset % alignment !== 0)) continue;
      parts.forEach((part, i) => {
        parents.set(part.id, { of: node.output.id, offset: offsets[i]! });
      });
      views.add(node);
    }
  }
  const places = new Map<number, Place>();
  for (const { id } of valuesOf(graph)) {
    let root = id;
    let offset = 0;
    for (let up = parents.get(root); up; up = parents.get(root)) {
      offset += up.offset;
      root = up.of;
    }
    places.set(id, { root, offset });
  }
  return { places, views };
}

const valuesOf = ({ inputs, nodes }: Graph): Value[] => [
  ...inputs.values(),
  ...nodes.map(({ output }) => output),
];

/** The layout with every view that can be had without a dispatch reading and writing one buffer. */
function withoutClashes(
  graph: Graph,
  alignment: number,
  given: ReadonlySet<Node>,
): Pick<Layout, 'places' | 'views'> {
  const excluded = new Set(given);
  for (;;) {
    const found = layOver(graph, alignment, excluded);
    const rootOf = (value: Value) => found.places.get(value.id)!.root;
    const clash = graph.nodes.find(
      (node) =>
        !found.views.has(node) &&
        Object.values(node.inputs).some((value) => rootOf(value) === rootOf(node.output)),
    );
    if (!clash) return found;
    // The concatenation that put the clashing output beside its own input goes back to copying.
    const whole = [...found.views].find(
      (node) => node.op === 'concat' && rootOf(node.output) === rootOf(clash.output) && !excluded.has(node),
    );
    if (!whole) throw new Error(`${clash.op}: no layout without a buffer both read and written`);
    excluded.add(whole);
  }
}

/** Concatenations with a part that is read after the whole no longer is: as a view it holds on to all of the whole. */
function outlived({ nodes }: Graph): Node[] {
  const last = new Map<number, number>();
  nodes.forEach((node, i) => {
    for (const { id } of Object.values(node.inputs)) last.set(id, i);
  });
  const end = ({ id }: Value) => last.get(id) ?? Number.POSITIVE_INFINITY;
  return nodes.filter(
    (node) => node.op === 'concat' && Object.values(node.inputs).some((part) => end(part) > end(node.output)),
  );
}

/** The last node that needs what lies at each root; a graph's outputs are needed for ever. */
export function lastUses(
  nodes: readonly Node[],
  outputs: Graph['outputs'],
  places: Layout['places'],
): Map<number, number> {
  const rootOf = ({ id }: Value) => places.get(id)!.root;
  const last = new Map<number, number>();
  nodes.forEach((node, i) => {
    for (const value of [...Object.values(node.inputs), node.output]) last.set(rootOf(value), i);
  });
  for (const value of outputs.values()) last.set(rootOf(value), Number.POSITIVE_INFINITY);
  return last;
}

function peakOf(graph: Graph, { places, views }: Pick<Layout, 'places' | 'views'>): number {
  const nodes = graph.nodes.filter((node) => !views.has(node));
  const shapes = new Map(valuesOf(graph).map(({ id, shape }) => [id, shape]));
  const given = new Set([...graph.inputs.values()].map(({ id }) => id));
  const ending = nodes.map((): number[] => []);
  for (const [root, i] of lastUses(nodes, graph.outputs, places)) ending[i]?.push(root);
  const alive = new Set<number>();
  let bytes = 0;
  let peak = 0;
  nodes.forEach((node, i) => {
    const { root } = places.get(node.output.id)!;
    if (!alive.has(root) && !given.has(root)) {
      alive.add(root);
      bytes += storageBytes(shapes.get(root)!);
    }
    peak = Math.max(peak, bytes);
    for (const over of ending[i]!) if (alive.delete(over)) bytes -= storageBytes(shapes.get(over)!);
  });
  return peak;
}

/**
 * Lays out a fused graph: slices and the parts of concatenations are ranges of their whole where the alignment allows
 * it and no dispatch would read and write one buffer; a concatenation is copied where that takes less memory.
 * Which ones is tried one after the other; a `rough` layout, for comparisons, copies all that might be worth it or none.
 */
export function layout(graph: Graph, alignment: number, rough = false): Layout {
  const measured = (excluded: ReadonlySet<Node>): Layout => {
    const found = withoutClashes(graph, alignment, excluded);
    return { ...found, peakBytes: peakOf(graph, found) };
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
