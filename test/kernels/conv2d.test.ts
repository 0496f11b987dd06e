import { ShapeError } from '../../src/errors.ts';
import { type Conv2dOptions, conv2d, outputSize } from '../../src/kernels/conv2d/conv2d.ts';
import type { Capabilities } from '../../src/kernels/device/device.ts';
import { type ConvolutionInputs, referenceConv2d } from '../reference/conv2d.ts';
import { cases } from './cases/conv2d.ts';
import { EPS, F16_EPS, inHalves, maxDifference, rounded, storingError, testDevice } from './harness.ts';
import { conv2dInputs, runConv2d } from './run-conv2d.ts';
import { afterAll, describe, expect, it } from './test-functions.ts';
import { familiesHere, inEachType } from './variants.ts';

/** Returns sample `s` of inputs of `n` samples. */
function sampleOf(inputs: ConvolutionInputs, n: number, s: number): ConvolutionInputs {
  const part = (values: ArrayLike<number>) => {
    const size = values.length / n;
    return Float32Array.from(values).slice(s * size, (s + 1) * size);
  };
  const { x, weight, bias, ...perSample } = inputs;
  return {
    x: part(x),
    weight,
    ...(bias ? { bias } : {}),
    ...Object.fromEntries(Object.entries(perSample).map(([name, values]) => [name, part(values)])),
  };
}

describe.each(familiesHere)('conv2d, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);
  afterAll(async () => (await device)?.close());

  it.for(inEachType(cases))('$name', async ({ options, stored }, { skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    const inputs = rounded(conv2dInputs(options), stored);
    const y = await runConv2d(here, options, inputs, { stored });
    const terms = options.x[0] * options.kernel[0] * options.kernel[1];
    // Winograd's transforms lose 4 to 6 bits, those of 7x7 tiles lose 8.
    const { steps } = conv2d(here.capabilities, options);
    const large = steps.some(({ kernel }) => kernel.name.startsWith('winograd7.'));
    const eps = inHalves(family, options.weights) ? F16_EPS : (large ? 256 : 64) * EPS;
    const expected = referenceConv2d(options, inputs);
    const { difference, index } = maxDifference(y, expected);
    // Gathered taps store the sum in y before its epilogue.
    const stores = steps.some(({ kernel }) => kernel.name.startsWith('conv2d.taps.finish')) ? 2 : 1;
    const storing = stores * storingError(stored, expected);
    expect(difference, `at ${index}`).toBeLessThan(2 * eps * Math.sqrt(terms) + 8 * EPS + storing);
  });

  it('gives a sample the same bytes alone and in a batch', async ({ skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    for (const { options } of cases.filter(({ options: { x } }) => x[1] > 1)) {
      const [c, n, h, w] = options.x;
      const inputs = conv2dInputs(options);
      const whole = await runConv2d(here, options, inputs);
      const size = whole.length / n;
      for (const s of [0, n - 1]) {
        const alone = await runConv2d(here, { ...options, x: [c, 1, h, w] }, sampleOf(inputs, n, s));
        const bytes = Buffer.from(whole.buffer, 4 * s * size, 4 * size);
        expect(Buffer.from(alone.buffer, 0, 4 * size).equals(bytes)).toBe(true);
      }
    }
  }, 120_000);
});

describe('compact weights', () => {
  it('are transformed in blocks if not all can be bound at once', async () => {
    const device = await testDevice();
    const options: Conv2dOptions = {
      x: [130, 2, 17, 16],
      outChannels: 72,
      kernel: [3, 3],
      padding: [1, 1, 1, 1],
      bias: true,
      embedding: true,
      compact: true,
      weights: 'f16',
    };
    const inputs = conv2dInputs(options);
    const { capabilities } = device;
    const narrow = { ...capabilities, maxBindingBytes: 2 ** 20 };
    const blocks = conv2d(narrow, options);
    expect(Math.max(...Object.values(blocks.scratch))).toBeLessThanOrEqual(2 ** 20);
    expect(blocks.steps.length).toBeGreaterThan(conv2d(capabilities, options).steps.length);
    const whole = await runConv2d(device, options, inputs);
    const inBlocks = await runConv2d({ ...device, capabilities: narrow }, options, inputs);
    expect(Buffer.from(inBlocks.buffer).equals(Buffer.from(whole.buffer))).toBe(true);
  });

  it('are used for weights that cannot be bound', () => {
    const capabilities = { family: 'plain', subgroupSize: 0, maxBindingBytes: 2 ** 27 } as Capabilities;
    const packed = (channels: number) =>
      conv2d(capabilities, {
        x: [channels, 1, 16, 16],
        outChannels: channels,
        kernel: [3, 3],
        padding: [1, 1, 1, 1],
        bias: false,
        weights: 'f16',
      }).packing.weight!.bytes;
    expect(packed(960)).toBe(4 * 36 * 960 * 960);
    expect(packed(1280)).toBe(2 * 9 * 1280 * 1280);
  });
});

describe('conv2d shapes', () => {
  const options: Conv2dOptions = {
    x: [4, 2, 9, 7],
    outChannels: 8,
    kernel: [3, 3],
    bias: true,
    weights: 'f32',
  };
  it('have as many output pixels as in PyTorch', () => {
    expect(outputSize(options)).toEqual([7, 5]);
    expect(outputSize({ ...options, stride: 2, padding: [1, 1, 1, 1] })).toEqual([5, 4]);
    expect(outputSize({ ...options, stride: 2, padding: [0, 0, 1, 1] })).toEqual([4, 3]);
    expect(outputSize({ ...options, upsample: 2, padding: [1, 1, 1, 1] })).toEqual([18, 14]);
  });
  it('are rejected if they make no convolution', () => {
    expect(() => outputSize({ ...options, x: [4, 1, 2, 7] })).toThrow(ShapeError);
    expect(() => outputSize({ ...options, x: [4, 1, 2, 7] })).toThrow('2x7');
  });
});
