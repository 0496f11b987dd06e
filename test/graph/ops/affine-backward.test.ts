// The gradient of a convolution with respect to the rows a and b of its input a·x + b.

import { expect, it } from 'vitest';
import { differentiate } from '../../../src/graph/core/gradient.ts';
import { apply, input, newGraph, output } from '../../../src/graph/core/graph.ts';
import { traceEach } from '../../../src/graph/evaluation/evaluation.ts';
import { loadModel } from '../../../src/graph/models/open-model.ts';
import { modelFiles } from '../../../src/graph/node/model-source.ts';
import { randomValues, testDevice } from '../../kernels/harness.ts';
import { runGraph } from '../run-graph.ts';

const dot = (one: ArrayLike<number>, other: ArrayLike<number>) =>
  Array.from(one).reduce((sum, value, i) => sum + value * other[i]!, 0);

it('is the adjoint of the forward pass, which is linear in the rows', async () => {
  const graph = newGraph();
  const x = input(graph, 'x', [3, 2, 5, 4]);
  const affine = input(graph, 'affine', [6, 2, 1, 1]);
  const dy = input(graph, 'dy', [4, 2, 5, 4]);
  const attributes = {
    outChannels: 4,
    kernel: [3, 3],
    stride: 1,
    padding: [1, 1, 1, 1],
    scale: 0.5,
  } as const;
  const weight = { name: 'weight', length: 4 * 3 * 9, values: async () => randomValues(4 * 3 * 9, 4) };
  const y = apply(graph, 'conv2d', attributes, { x, affine }, { weight });
  const { values } = differentiate(graph, { seeds: [{ of: y, gradient: dy }], values: [affine] });
  output(graph, 'y', y);
  output(graph, 'gradient', values.get(affine.id)!);
  const device = await testDevice();
  for (const seed of [5, 6, 7]) {
    const inputs = { x: randomValues(120, 1), affine: randomValues(12, seed), dy: randomValues(160, 3) };
    const actual = await runGraph(device, graph, inputs);
    expect(dot(actual.gradient!, inputs.affine)).toBeCloseTo(dot(actual.y!, inputs.dy), 4);
  }
});

it('cifar-10 can be differentiated with respect to all its constants', async () => {
  const { network, evaluation, close } = await loadModel(await modelFiles('cifar-10'), { slots: 1 });
  const { graph, error } = traceEach(network, evaluation, 1);
  const dy = input(graph, 'dy', error.shape);
  const { constants } = differentiate(graph, {
    seeds: [{ of: error, gradient: dy }],
    constants: () => true,
  });
  await close();
  expect([...constants.keys()]).toEqual(
    expect.arrayContaining(['input scales', 'noise rows', 'model.map_layer0.weight']),
  );
});
