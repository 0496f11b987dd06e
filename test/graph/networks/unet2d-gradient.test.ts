// Tests the gradients of whole UNets against torch's autograd through diffusers (test/golden/gradients.py).

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { differentiate } from '../../../src/graph/core/gradient.ts';
import { input, output } from '../../../src/graph/core/graph.ts';
import { maxDifference, testDevice } from '../../kernels/harness.ts';
import { runGraph } from '../run-graph.ts';
import { goldens, goldenUNet } from './unet2d-golden.ts';

type Measures = readonly [norm: number, product: number];
const golden = JSON.parse(readFileSync(join(goldens, 'gradients', 'parameters.json'), 'utf8')) as Record<
  string,
  Record<string, Measures>
>;

/** Returns the norm of a gradient, and its product with cos 1, cos 2, ... */
function measuresOf(gradient: Float32Array): Measures {
  let [squares, product] = [0, 0];
  gradient.forEach((value, i) => {
    squares += value ** 2;
    product += value * Math.cos(i + 1);
  });
  return [Math.sqrt(squares), product];
}

/** Returns the gradients of mean(output²) with respect to the sample and, if `parameters`, to every parameter by name. */
async function gradientsOf(name: string, parameters: boolean) {
  const { graph, sample, y, inputs, divisors, io, weights, close } = await goldenUNet(name);
  const dy = input(graph, 'dy', y.shape);
  const made = differentiate(graph, {
    seeds: [{ of: y, gradient: dy }],
    values: [sample],
    constants: () => parameters,
  });
  output(graph, 'sample gradient', made.values.get(sample.id)!);
  for (const [key, value] of made.constants) output(graph, key, value);
  const diffusersOutput = await io.readF32('output');
  const each = diffusersOutput.length / divisors.length;
  const seed = diffusersOutput.map(
    (value, i) => (2 * value) / diffusersOutput.length / divisors[Math.floor(i / each)]!,
  );
  const outputs = await runGraph(await testDevice(), graph, { ...inputs, dy: seed });
  const expected = await io.readF32('sample_gradient');
  const ofParameters = new Map<string, Float32Array>();
  for (const key of made.constants.keys()) {
    let from = 0;
    for (const part of key.split('+')) {
      const length = weights.tensors.get(part)!.shape.reduce((product, side) => product * side, 1);
      ofParameters.set(part, outputs[key]!.subarray(from, from + length));
      from += length;
    }
  }
  await close();
  return { actual: outputs['sample gradient']!, expected, ofParameters };
}

describe('gradients of a whole UNet equal torch', () => {
  // table: classes, scale and shift, attention, 28 to 7; ddpm: no classes, plain time embedding, convolutions between
  // the levels.
  it.each(['table', 'ddpm'])('%s: the sample and every parameter', async (name) => {
    const { actual, expected, ofParameters } = await gradientsOf(name, true);
    const largest = Math.max(...expected.map(Math.abs));
    expect(maxDifference(actual, expected).difference / largest).toBeLessThan(2e-5);

    const measures = golden[name]!;
    expect([...ofParameters.keys()].sort()).toEqual(Object.keys(measures).sort());
    // Some gradients are 0 except for rounding: of the bias of keys, and of a bias before a norm of single channels.
    const least = 1e-5 * Math.max(...Object.values(measures).map(([norm]) => norm));
    for (const [key, gradient] of ofParameters) {
      const expected = measures[key]!;
      const scale = Math.max(expected[0], least);
      measuresOf(gradient).forEach((value, i) => {
        const message = `${key}: ${['norm', 'product'][i]} expected ${expected[i]}, got ${value}`;
        expect(Math.abs(value - expected[i]!) / scale, message).toBeLessThan(1e-3);
      });
    }
  });
  // Residual blocks between the levels, with labels embedded like timesteps or a centred input; attention with
  // convolutions between the levels; Fourier features; no attention.
  it.each(['resnet-blocks', 'resnet-type', 'attn-conv', 'fourier', 'identity'])(
    '%s: the sample',
    async (name) => {
      const { actual, expected } = await gradientsOf(name, false);
      const largest = Math.max(...expected.map(Math.abs));
      expect(maxDifference(actual, expected).difference / largest).toBeLessThan(2e-5);
    },
  );
});
