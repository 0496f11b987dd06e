// Tests long sums, which no other test has: 65536 columns, and gradients that several passes gather.

import { type Conv2dOptions, outputSize } from '../../src/kernels/conv2d/conv2d.ts';
import { weightGradient } from '../../src/kernels/conv2d/weight-gradient.ts';
import { referenceConv2dBackward } from '../reference/conv2d.ts';
import { maxDifference, randomValues, runRoutine, testDevice } from './harness.ts';
import { afterAll, describe, expect, it } from './test-functions.ts';
import { familiesHere } from './variants.ts';

const EPS = 2 ** -23;
const SAME = { kernel: [3, 3], padding: [1, 1, 1, 1] } as const;

const cases = (
  [
    { x: [4, 1, 1, 65536], outChannels: 3, kernel: [1, 1] },
    { x: [5, 64, 32, 33], outChannels: 3, kernel: [1, 1] },
    { x: [3, 21, 15, 13], outChannels: 9, ...SAME },
    { x: [20, 3, 28, 28], outChannels: 9, ...SAME, stride: 2 },
    { x: [20, 5, 28, 28], outChannels: 10, ...SAME },
    // in registers: several samples to a part, several parts to a sample, fewer input channels than lanes
    { x: [10, 40, 8, 8], outChannels: 1, ...SAME },
    { x: [9, 2, 70, 32], outChannels: 18, ...SAME },
    { x: [3, 3, 20, 16], outChannels: 10, ...SAME },
    // by transformed tiles: more tiles than a block has, odd sizes, padding on one side
    { x: [16, 21, 28, 28], outChannels: 16, ...SAME },
    { x: [20, 3, 13, 14], outChannels: 16, kernel: [3, 3], padding: [0, 2, 1, 0] },
    { x: [16, 260, 14, 14], outChannels: 20, ...SAME },
    { x: [36, 9, 7, 10], outChannels: 40, ...SAME },
  ] as const
).map((options) => ({ options: { bias: false, weights: 'f32', ...options } as Conv2dOptions }));

describe.each(familiesHere)('gradients of weights, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);
  afterAll(async () => (await device)?.close());

  it.for(cases)('of x $options.x', async ({ options }, { skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    const { x: shape, outChannels, kernel } = options;
    const [c, n, h, w] = shape;
    const [oh, ow] = outputSize(options);
    // With means far from 0, the errors of adding values one by one are visible.
    const x = randomValues(c * n * h * w, 1).map((v) => 1 + v);
    const dy = randomValues(outChannels * n * oh * ow, 2).map((v) => 1 + v);
    const weight = new Float32Array(outChannels * c * kernel[0] * kernel[1]);
    const expected = referenceConv2dBackward(options, { x, weight }, dy).weight;
    const run = async (maxBindingBytes: number) => {
      const { y } = await runRoutine(
        here,
        weightGradient({ ...here.capabilities, maxBindingBytes }, options),
        {
          activations: {
            x: { shape, values: x },
            dy: { shape: [outChannels, n, oh, ow], values: dy },
          },
          outputs: { y: [outChannels, 1, 1, weight.length / outChannels] },
        },
      );
      return y!;
    };
    const whole = await run(here.capabilities.maxBindingBytes);
    // 1024 terms are added one by one, then at most 64 of these sums, each near its mean: the rounding errors
    // are a random walk. As in the forward pass, Winograd's transforms of 7x7 tiles lose two more bits than those of 4x4.
    const { steps } = weightGradient(here.capabilities, options);
    const large = steps.some(({ kernel }) => kernel.name.startsWith('winograd7.'));
    const bound = (large ? 64 : 16) * EPS * n * oh * ow;
    expect(maxDifference(whole, expected).difference).toBeLessThan(bound);
    // Several passes, each with the fewest columns or tiles that the kernel allows (1024).
    const tiled = kernel[0] === 3 && !options.stride && Math.min(c, outChannels) >= 16;
    const held = tiled ? 36 * Math.max(c, outChannels) : Math.ceil((c * kernel[0] * kernel[1]) / 4) * 4;
    const inPasses = await run(4 * 1024 * held);
    expect(maxDifference(inPasses, expected).difference).toBeLessThan(bound);
    expect(await run(here.capabilities.maxBindingBytes)).toEqual(whole);
  });
});
