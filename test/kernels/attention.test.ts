import { ShapeError } from '../../src/errors.ts';
import { attention } from '../../src/kernels/attention/attention.ts';
import type { AttentionOptions } from '../../src/kernels/attention/attention-options.ts';
import type { Capabilities } from '../../src/kernels/device/device.ts';
import { referenceAttention } from '../reference/attention.ts';
import { cases } from './cases/attention.ts';
import { EPS, F16_EPS, inHalves, maxDifference, rounded, storingError, testDevice } from './harness.ts';
import { attentionInputs, runAttention } from './run-attention.ts';
import { afterAll, describe, expect, it } from './test-functions.ts';
import { familiesHere, inEachType } from './variants.ts';

const bits = (values: Float32Array) => new Uint32Array(values.slice().buffer);

describe.each(familiesHere)('attention, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);
  afterAll(async () => (await device)?.close());

  it.for(inEachType(cases))('$name', async ({ options, stored }, context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    const inputs = rounded(attentionInputs(options), stored);
    const expected = referenceAttention(options, inputs);
    const y = await runAttention(here, options, inputs, { stored });
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
      const inputs = attentionInputs(options);
      const whole = await runAttention(here, options, inputs);
      for (const s of [0, n - 1]) {
        const part = (values: Float32Array) =>
          values.slice((s * values.length) / n, ((s + 1) * values.length) / n);
        const alone = await runAttention(
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
    const sizes = { heads: 3, headDim: 68, n: 2, scale: 0.1 };
    for (const options of [
      { ...sizes, queries: 300, keys: 200 },
      { ...sizes, queries: 250, keys: 250, causal: true },
    ]) {
      const { queries, keys } = options;
      const inputs = attentionInputs(options);
      const whole = await runAttention(here, options, inputs);
      for (const maxBindingBytes of [4 * keys * queries * 3, 4 * keys * (queries + 2), 2 * keys * queries]) {
        const routine = attention({ ...here.capabilities, maxBindingBytes }, options);
        expect(routine.scratch.scores).toBeLessThanOrEqual(maxBindingBytes);
        const inParts = await runAttention(here, options, inputs, { routine });
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
