import { ShapeError } from '../../src/errors.ts';
import { type Conv2dOptions, conv2d, outputSize } from '../../src/kernels/conv2d/conv2d.ts';
import type { Capabilities, Device } from '../../src/kernels/device/device.ts';
import { FAMILIES } from '../../src/kernels/device/families.ts';
import type { Stored } from '../../src/kernels/device/storage.ts';
import { type ConvolutionInputs, referenceConv2d } from '../reference/conv2d.ts';
import { cases } from './cases/conv2d.ts';
import {
  type Activation,
  EPS,
  F16_EPS,
  inBothTypes,
  inHalves,
  maxDifference,
  randomValues,
  rounded,
  runRoutine,
  storingError,
  testDevice,
} from './harness.ts';
import { afterAll, describe, expect, it } from './test-functions.ts';

function inputsOf({ x, outChannels, kernel, ...options }: Conv2dOptions): ConvolutionInputs {
  const [c, n, h, w] = x;
  const [oh, ow] = outputSize({ x, kernel, ...options });
  return {
    x: randomValues(c * n * h * w, 1),
    weight: randomValues(outChannels * c * kernel[0] * kernel[1], 2),
    ...(options.bias ? { bias: randomValues(outChannels, 3) } : {}),
    ...(options.affine !== undefined ? { affine: randomValues(n * 2 * c, 4) } : {}),
    ...(options.embedding ? { embedding: randomValues(n * outChannels, 5) } : {}),
    ...(options.residual ? { residual: randomValues(n * outChannels * oh * ow, 6) } : {}),
  };
}

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

async function run(
  device: Device,
  options: Conv2dOptions,
  inputs: ConvolutionInputs,
  stored?: Stored,
): Promise<Float32Array> {
  const { x, outChannels } = options;
  const [c, n] = x;
  const [oh, ow] = outputSize(options);
  const activations: Record<string, Activation> = { x: { shape: x, values: inputs.x } };
  if (inputs.affine) activations.affine = { shape: [2 * c, n, 1, 1], values: inputs.affine };
  if (inputs.embedding) activations.embedding = { shape: [outChannels, n, 1, 1], values: inputs.embedding };
  if (inputs.residual) activations.residual = { shape: [outChannels, n, oh, ow], values: inputs.residual };
  const constants: Record<string, Float32Array<ArrayBuffer>> = { weight: Float32Array.from(inputs.weight) };
  if (inputs.bias) constants.bias = Float32Array.from(inputs.bias);
  const outputs = { y: [outChannels, n, oh, ow] as const };
  const { y } = await runRoutine(device, conv2d(device.capabilities, options), {
    activations,
    constants,
    outputs,
    stored,
  });
  return y!;
}

describe.each(FAMILIES)('conv2d, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);
  afterAll(async () => (await device)?.close());

  it.for(inBothTypes(cases))('$name', async ({ options, stored }, { skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    if (stored === 'f16' && !here.capabilities.f16) return skip('this adapter has no f16');
    const inputs = rounded(inputsOf(options), stored);
    const y = await run(here, options, inputs, stored);
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
      const inputs = inputsOf(options);
      const whole = await run(here, options, inputs);
      const size = whole.length / n;
      for (const s of [0, n - 1]) {
        const alone = await run(here, { ...options, x: [c, 1, h, w] }, sampleOf(inputs, n, s));
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
    const inputs = inputsOf(options);
    const { capabilities } = device;
    const narrow = { ...capabilities, maxBindingBytes: 2 ** 20 };
    const blocks = conv2d(narrow, options);
    expect(Math.max(...Object.values(blocks.scratch))).toBeLessThanOrEqual(2 ** 20);
    expect(blocks.steps.length).toBeGreaterThan(conv2d(capabilities, options).steps.length);
    const whole = await run(device, options, inputs);
    const inBlocks = await run({ ...device, capabilities: narrow }, options, inputs);
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
