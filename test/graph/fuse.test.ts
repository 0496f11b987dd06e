// Tests which nodes are fused, and which are not.

import { describe, expect, it } from 'vitest';
import { fuse } from '../../src/graph/core/fuse.ts';
import { apply, type Graph, input, newGraph, output } from '../../src/graph/core/graph.ts';
import type { Constant, Value } from '../../src/graph/ops/value.ts';

const zeros = (length: number): Constant => ({
  name: `zeros ${length}`,
  length,
  values: async () => new Float32Array(length),
});
const kinds = (graph: Graph) => graph.nodes.map(({ op }) => op);

function conv(graph: Graph, x: Value, outChannels = x.shape[0]): Value {
  const attributes = { outChannels, kernel: [3, 3], stride: 1, padding: [1, 1, 1, 1] } as const;
  return apply(
    graph,
    'conv2d',
    attributes,
    { x },
    { weight: zeros(outChannels * x.shape[0] * 9), bias: zeros(outChannels) },
  );
}
const norm = (graph: Graph, x: Value) =>
  apply(
    graph,
    'groupNorm',
    { groups: 2, eps: 1e-5, activation: 'silu' },
    { x },
    { gamma: zeros(x.shape[0]), beta: zeros(x.shape[0]) },
  );

/** Returns the fused graph of one input [4, 2, 8, 8] and one output, the result of `build`. */
function traced(build: (graph: Graph, x: Value) => Value): Graph {
  const graph = newGraph();
  output(graph, 'y', build(graph, input(graph, 'x', [4, 2, 8, 8])));
  return fuse(graph);
}

describe('a group norm', () => {
  it('with convolutions as its only consumers becomes their affine rows', () => {
    const graph = traced((g, x) => conv(g, norm(g, x)));
    expect(kinds(graph)).toEqual(['groupNormAffine', 'conv2d']);
    const [rows, last] = graph.nodes;
    expect(rows!.output.shape).toEqual([8, 2, 1, 1]);
    expect(last!.inputs.affine).toBe(rows!.output);
    expect(last!.inputs.x).toBe(graph.inputs.get('x'));
    expect(last!.attributes).toMatchObject({ activation: 'silu' });
  });
  it('with another consumer stays a node', () => {
    const graph = traced((g, x) => {
      const h = norm(g, x);
      return apply(g, 'concat', {}, { x0: conv(g, h), x1: h });
    });
    expect(kinds(graph)).toEqual(['groupNorm', 'conv2d', 'concat']);
  });
  it('that is an output stays a node', () => {
    const graph = newGraph();
    const h = norm(graph, input(graph, 'x', [4, 2, 8, 8]));
    output(graph, 'h', h);
    output(graph, 'y', conv(graph, h));
    expect(kinds(fuse(graph))).toEqual(['groupNorm', 'conv2d']);
  });
});

describe('an addition', () => {
  it('to a convolution becomes its residual, with its scale', () => {
    const graph = traced((g, x) => apply(g, 'add', { scale: 0.5 }, { x1: conv(g, x), x2: x }));
    expect(kinds(graph)).toEqual(['conv2d']);
    expect(graph.nodes[0]!.inputs.residual).toBe(graph.inputs.get('x'));
    expect(graph.nodes[0]!.attributes).toMatchObject({ scale: 0.5 });
    expect(graph.nodes[0]!.output).toBe(graph.outputs.get('y'));
  });
  it('is done by the summand that is computed later', () => {
    const graph = traced((g, x) => {
      const first = conv(g, x);
      return apply(g, 'add', {}, { x1: first, x2: conv(g, norm(g, x)) });
    });
    expect(kinds(graph)).toEqual(['conv2d', 'groupNormAffine', 'conv2d']);
    expect(graph.nodes[2]!.inputs.residual).toBe(graph.nodes[0]!.output);
  });
  it('moves the earlier summand to the place of the addition if the later one cannot do it', () => {
    const graph = traced((g, x) => {
      const first = conv(g, x);
      const later = apply(g, 'activation', { activation: 'silu' }, { x });
      return apply(g, 'add', {}, { x1: first, x2: later });
    });
    expect(kinds(graph)).toEqual(['activation', 'conv2d']);
    expect(graph.nodes[1]!.inputs.residual).toBe(graph.nodes[0]!.output);
  });
  it("to a group norm's gradient becomes its residual, unless it is scaled", () => {
    const gradient = (scale: number) =>
      traced((g, x) => {
        const attributes = { groups: 2, eps: 1e-5, activation: 'silu' } as const;
        const constants = { gamma: zeros(4), beta: zeros(4) };
        const dx = apply(g, 'groupNormGradient', attributes, { x, dy: x }, constants);
        return apply(g, 'add', { scale }, { x1: x, x2: dx });
      });
    const taken = gradient(1);
    expect(kinds(taken)).toEqual(['groupNormGradient']);
    expect(taken.nodes[0]!.inputs.residual).toBe(taken.inputs.get('x'));
    expect(kinds(gradient(0.5))).toEqual(['groupNormGradient', 'add']);
  });
  it('of an embedding is fused before a residual, not after it', () => {
    const rows = (g: Graph) => input(g, 'rows', [4, 2, 1, 1]);
    const both = traced((g, x) => {
      const h = apply(g, 'addRows', {}, { x: conv(g, x), embedding: rows(g) });
      return apply(g, 'add', {}, { x1: h, x2: x });
    });
    expect(kinds(both)).toEqual(['conv2d']);
    expect(Object.keys(both.nodes[0]!.inputs).sort()).toEqual(['embedding', 'residual', 'x']);
    const scaled = traced((g, x) => {
      const h = apply(g, 'add', { scale: 2 }, { x1: conv(g, x), x2: x });
      return apply(g, 'addRows', {}, { x: h, embedding: rows(g) });
    });
    expect(kinds(scaled)).toEqual(['conv2d', 'addRows']);
  });
  it('to a convolution with another consumer stays a node', () => {
    const graph = traced((g, x) => {
      const h = conv(g, x);
      return apply(g, 'concat', {}, { x0: apply(g, 'add', {}, { x1: h, x2: x }), x1: h });
    });
    expect(kinds(graph)).toEqual(['conv2d', 'add', 'concat']);
  });
});

describe('an upsampling', () => {
  it('before a 3x3 convolution is done in its loads', () => {
    const graph = traced((g, x) => conv(g, apply(g, 'upsample', {}, { x })));
    expect(kinds(graph)).toEqual(['conv2d']);
    expect(graph.nodes[0]!.attributes).toMatchObject({ upsample: 2 });
    expect(graph.nodes[0]!.output.shape).toEqual([4, 2, 16, 16]);
  });
  it('with another consumer stays a node', () => {
    const graph = traced((g, x) => {
      const h = apply(g, 'upsample', {}, { x });
      return apply(g, 'add', {}, { x1: conv(g, h), x2: h });
    });
    expect(kinds(graph)).toEqual(['upsample', 'conv2d']);
  });
});

it('leaves out nodes that no output depends on', () => {
  const graph = traced((g, x) => {
    norm(g, conv(g, x));
    return apply(g, 'activation', { activation: 'silu' }, { x });
  });
  expect(kinds(graph)).toEqual(['activation']);
});
