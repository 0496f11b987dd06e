// The gradient of a convolution with a stride with respect to its input, with what may be fused into it, and in passes.

import { ShapeError } from '../../src/errors.ts';
import { type Conv2dOptions, outputSize } from '../../src/kernels/conv2d/conv2d.ts';
import { inputGradient } from '../../src/kernels/conv2d/input-gradient.ts';
import type { Capabilities } from '../../src/kernels/device/device.ts';
import { referenceConv2dBackward } from '../reference/conv2d.ts';
import { EPS, F16_EPS, inHalves, maxDifference, randomValues, runRoutine, testDevice } from './harness.ts';
import { afterAll, describe, expect, it } from './test-functions.ts';
import { familiesHere } from './variants.ts';

const cases = (
  [
    // one pixel; sizes that are no whole vec4s, vec2s or blocks of columns; every padding
    { x: [8, 1, 1, 1], outChannels: 9, stride: 2, padding: [1, 1, 1, 1] },
    { x: [9, 3, 7, 7], outChannels: 8, stride: 2, padding: [1, 1, 1, 1] },
    { x: [17, 2, 9, 14], outChannels: 10, stride: 2, padding: [1, 0, 0, 1] },
    { x: [8, 2, 10, 19], outChannels: 12, stride: 2, padding: [0, 1, 1, 0] },
    { x: [12, 5, 28, 28], outChannels: 20, stride: 2, padding: [0, 0, 1, 1] },
    { x: [20, 2, 33, 16], outChannels: 16, stride: 2, padding: [0, 0, 0, 0] },
    { x: [10, 2, 11, 10], outChannels: 8, stride: 3, padding: [1, 1, 1, 1] },
  ] as const
).map((geometry) => ({
  geometry,
  name: `[${geometry.x}] / ${geometry.stride}, padding ${geometry.padding}`,
}));

describe.each(familiesHere)('gradients of inputs, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);
  afterAll(async () => (await device)?.close());

  it.for(cases)('$name', async ({ geometry }, { skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    const { x, outChannels, stride, padding } = geometry;
    const [c, n] = x;
    const options: Conv2dOptions = {
      x,
      outChannels,
      kernel: [3, 3],
      stride,
      padding,
      bias: false,
      weights: 'f32',
    };
    const dy = [outChannels, n, ...outputSize(options)] as const;
    const size = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
    const values = {
      x: new Float32Array(size(x)),
      weight: randomValues(9 * c * outChannels, 1),
      dy: randomValues(size(dy), 2),
      residual: randomValues(size(x), 3),
    };
    const transposed = Float32Array.from(values.weight, (_, i) => {
      const [ic, o, tap] = [Math.floor(i / 9 / outChannels), Math.floor(i / 9) % outChannels, i % 9];
      return values.weight[(o * c + ic) * 9 + 8 - tap]!;
    });
    const expected = referenceConv2dBackward(options, values, values.dy).x;
    const run = async (fused: { residual?: boolean; scale?: number }, maxBindingBytes?: number) => {
      const capabilities = { ...here.capabilities, ...(maxBindingBytes ? { maxBindingBytes } : {}) };
      const routine = inputGradient(capabilities, { x, dy, stride, padding, weights: 'f32', ...fused });
      const { y } = await runRoutine(here, routine, {
        activations: {
          dy: { shape: dy, values: values.dy },
          ...(fused.residual ? { residual: { shape: x, values: values.residual } } : {}),
        },
        constants: { weight: transposed },
        outputs: { y: x },
      });
      return y!;
    };
    // As in the forward pass, Winograd's transforms lose up to 8 bits.
    const eps = inHalves(family) ? F16_EPS : 256 * EPS;
    const bound = 2 * eps * Math.sqrt(9 * outChannels) + 8 * EPS;
    const whole = await run({});
    expect(maxDifference(whole, expected).difference).toBeLessThan(bound);
    const fused = await run({ residual: true, scale: 0.7 });
    const withResidual = expected.map((v, i) => 0.7 * (v + values.residual[i]!));
    expect(maxDifference(fused, withResidual).difference).toBeLessThan(bound);
    // In passes of few samples; other families choose another method if weights cannot be bound.
    expect(maxDifference(await run({}, 2 ** 16), whole).difference).toBeLessThan(bound);
  });
});

describe('a gradient of inputs', () => {
  const capabilities = { family: 'plain', maxBindingBytes: 2 ** 27 } as Capabilities;
  const options = {
    x: [8, 2, 8, 8],
    dy: [9, 2, 4, 4],
    stride: 2,
    padding: [1, 1, 1, 1],
    weights: 'f32',
  } as const;

  it('rejects a dy that is not the output, and a wide padding', () => {
    expect(() => inputGradient(capabilities, options)).not.toThrow();
    expect(() => inputGradient(capabilities, { ...options, dy: [9, 2, 4, 5] })).toThrow(ShapeError);
    expect(() => inputGradient(capabilities, { ...options, padding: [2, 1, 0, 1] })).toThrow(ShapeError);
  });
});
