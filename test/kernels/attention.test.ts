import { ShapeError } from '../../src/errors.ts';
import { attention } from '../../src/kernels/attention/attention.ts';
import type { AttentionOptions } from '../../src/kernels/attention/attention-options.ts';
import type { Capabilities, Device } from '../../src/kernels/device/device.ts';
import { FAMILIES } from '../../src/kernels/device/families.ts';
import type { Stored } from '../../src/kernels/device/storage.ts';
import { referenceAttention } from '../reference/attention.ts';
import { cases } from './cases/attention.ts';
import {
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

interface Inputs {
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
}

/** q is so large that some weights of the softmax are almost 0 and others dominate. */
const inputsOf = ({ heads, headDim, n, queries, keys }: AttentionOptions): Inputs => ({
  q: randomValues(heads * headDim * n * queries, 1).map((value) => 4 * value),
  k: randomValues(heads * headDim * n * keys, 2),
  v: randomValues(heads * headDim * n * keys, 3),
});

async function run(
  device: Device,
  options: AttentionOptions,
  { q, k, v }: Inputs,
  capabilities: Capabilities = device.capabilities,
  stored?: Stored,
): Promise<Float32Array> {
  const { heads, headDim, n, queries, keys } = options;
  const qShape = [heads * headDim, n, 1, queries] as const;
  const kShape = [heads * headDim, n, 1, keys] as const;
  const { y } = await runRoutine(device, attention(capabilities, options), {
    activations: {
      q: { shape: qShape, values: q },
      k: { shape: kShape, values: k },
      v: { shape: kShape, values: v },
    },
    outputs: { y: qShape },
    stored,
  });
  return y!;
}

const bits = (values: Float32Array) => new Uint32Array(values.slice().buffer);

describe.each(FAMILIES)('attention, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);
  afterAll(async () => (await device)?.close());

  it.for(inBothTypes(cases))('$name', async ({ options, stored }, context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    if (stored === 'f16' && !here.capabilities.f16) return context.skip('this adapter has no f16');
    const inputs = rounded(inputsOf(options), stored);
    const expected = referenceAttention(options, inputs);
    const y = await run(here, options, inputs, here.capabilities, stored);
    const { difference, index } = maxDifference(y, expected);
    // Scores reach 4 sqrt(headDim); their absolute error is a relative error of the weights. If factors are rounded to
    // f16, rounding errors of a score add up like random numbers, which the scale makes independent of headDim.
    const bound = inHalves(family) ? 4 * F16_EPS : EPS * (16 + 4 * options.headDim);
    expect(difference, `at ${index}`).toBeLessThan(bound + storingError(stored, expected));
  });

  it('gives a sample the same bytes alone and in a batch', async (context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    for (const { options } of cases.filter((c) => c.options.n > 1)) {
      const { n } = options;
      const inputs = inputsOf(options);
      const whole = await run(here, options, inputs);
      for (const s of [0, n - 1]) {
        const part = (values: Float32Array) =>
          values.slice((s * values.length) / n, ((s + 1) * values.length) / n);
        const alone = await run(
          here,
          { ...options, n: 1 },
          { q: part(inputs.q), k: part(inputs.k), v: part(inputs.v) },
        );
        expect(bits(alone)).toEqual(bits(part(whole)));
      }
    }
  });

  it('gives the same bytes if scores are computed in parts', async (context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    if (family === 'matrix') return context.skip('scores stay in workgroup memory');
    const sizes = { heads: 3, headDim: 40, n: 2, scale: 0.1 };
    for (const options of [
      { ...sizes, queries: 300, keys: 200 },
      { ...sizes, queries: 250, keys: 250, causal: true },
    ]) {
      const { queries, keys } = options;
      const inputs = inputsOf(options);
      const whole = await run(here, options, inputs);
      for (const maxBindingBytes of [4 * keys * queries * 3, 4 * keys * (queries + 2), 2 * keys * queries]) {
        const { scratch } = attention({ ...here.capabilities, maxBindingBytes }, options);
        expect(scratch.scores).toBeLessThanOrEqual(maxBindingBytes);
        const inParts = await run(here, options, inputs, { ...here.capabilities, maxBindingBytes });
        expect(bits(inParts)).toEqual(bits(whole));
      }
    }
  });
});

describe('attention shapes', () => {
  it('rejects invalid shapes', () => {
    const capabilities = { family: 'plain', maxBindingBytes: 2 ** 27 } as Capabilities;
    const options: AttentionOptions = { heads: 2, headDim: 8, n: 1, queries: 0, keys: 4, scale: 1 };
    expect(() => attention(capabilities, options)).toThrow(ShapeError);
    expect(() => attention(capabilities, options)).toThrow('0 queries');
    expect(() => attention(capabilities, { ...options, queries: 3, causal: true })).toThrow(
      'expected as many keys as queries in a causal attention, got 3 queries and 4 keys',
    );
  });
});
