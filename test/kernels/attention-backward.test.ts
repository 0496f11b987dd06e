import { ShapeError } from '../../src/errors.ts';
import { attentionGradient } from '../../src/kernels/attention/attention-backward.ts';
import type { AttentionGradients, AttentionOptions } from '../../src/kernels/attention/attention-options.ts';
import type { Capabilities, Device } from '../../src/kernels/device/device.ts';
import { referenceAttentionGradients } from '../reference/attention.ts';
import { cases } from './cases/attention.ts';
import { maxDifference, randomValues, runRoutine, testDevice } from './harness.ts';
import { afterAll, describe, expect, it } from './test-functions.ts';
import { familiesHere } from './variants.ts';

/**
 * The cases of the forward pass that differ in where tokens and heads end, and one that is too large for a
 * tile of each family.
 */
const chosen = cases.filter(
  ({ options: { queries, keys, n } }) => queries * keys * n < 6000 || queries === 144,
);

const EPS = 2 ** -23;

const inputsOf = ({ heads, headDim, n, queries, keys }: AttentionOptions) => ({
  q: randomValues(heads * headDim * n * queries, 1).map((value) => 4 * value),
  k: randomValues(heads * headDim * n * keys, 2),
  v: randomValues(heads * headDim * n * keys, 3),
  dy: randomValues(heads * headDim * n * queries, 4),
});
type Inputs = ReturnType<typeof inputsOf>;

/** Returns the gradients by operand, each [n, heads·headDim, tokens]. */
async function run(
  device: Device,
  options: AttentionOptions,
  inputs: Inputs,
  of: AttentionGradients,
  capabilities: Capabilities = device.capabilities,
): Promise<Record<string, Float32Array>> {
  const { heads, headDim, n, queries, keys } = options;
  const c = heads * headDim;
  const activation = (values: Float32Array, tokens: number) => ({
    shape: [c, n, 1, tokens] as const,
    values,
  });
  const tokens = of === 'kv' ? keys : queries;
  const { y } = await runRoutine(device, attentionGradient(capabilities, { ...options, of }), {
    activations: {
      q: activation(inputs.q, queries),
      k: activation(inputs.k, keys),
      v: activation(inputs.v, keys),
      dy: activation(inputs.dy, queries),
    },
    outputs: { y: [of.length * c, n, 1, tokens] },
  });
  const all = of.length * c * tokens;
  return Object.fromEntries(
    [...of].map((name, part) => [
      name,
      Float32Array.from({ length: n * c * tokens }, (_, i) => {
        const sample = Math.floor(i / (c * tokens));
        return y![sample * all + part * c * tokens + (i % (c * tokens))]!;
      }),
    ]),
  );
}

describe.each(familiesHere)('backward of attention, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);
  afterAll(async () => (await device)?.close());

  it.for(chosen)('$name', async ({ options }, { skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    const inputs = inputsOf(options);
    const expected = referenceAttentionGradients(options, inputs, inputs.dy);
    const made = {
      ...(await run(here, options, inputs, 'q')),
      ...(await run(here, options, inputs, 'kv')),
    };
    const together = options.queries === options.keys ? await run(here, options, inputs, 'qkv') : {};
    for (const name of ['q', 'k', 'v'] as const) {
      const top = expected[name].reduce((most, v) => Math.max(most, Math.abs(v)), 1);
      for (const actual of [made[name], together[name]])
        if (actual) {
          const { difference, index } = maxDifference(actual, expected[name]);
          expect(difference, `${name} at ${index}`).toBeLessThan(EPS * top * (32 + 8 * options.headDim));
        }
    }
  });

  it('is the same if scores are computed in parts', async ({ skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    // Heads that are too large for the fused kernels.
    const sizes = { heads: 3, headDim: 52, n: 2, scale: 0.15 };
    for (const options of [
      { ...sizes, queries: 300, keys: 20 },
      { ...sizes, heads: 1, queries: 290, keys: 290, causal: true },
    ]) {
      const { queries, keys } = options;
      const inputs = inputsOf(options);
      const of = ['q', 'kv'] as const;
      const whole = await Promise.all(of.map((part) => run(here, options, inputs, part)));
      for (const maxBindingBytes of [4 * 4 * Math.ceil(keys / 4) * queries * 3, 4 * keys * 130]) {
        const capabilities = { ...here.capabilities, maxBindingBytes };
        const { scratch } = attentionGradient(capabilities, { ...options, of: 'kv' });
        expect(scratch.scores).toBeLessThanOrEqual(Math.max(maxBindingBytes, 4 * 128 * (keys + 3)));
        for (const [i, part] of of.entries()) {
          const inParts = await run(here, options, inputs, part, capabilities);
          for (const [name, values] of Object.entries(whole[i]!)) {
            const top = values.reduce((most, v) => Math.max(most, Math.abs(v)), 1);
            expect(maxDifference(inParts[name]!, values).difference).toBeLessThan(EPS * 64 * top);
          }
        }
      }
    }
  });

  it('gives a sample the same bytes alone and in a batch', async ({ skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    const options = { heads: 2, headDim: 8, n: 3, queries: 49, keys: 49, scale: 0.4 };
    const inputs = inputsOf(options);
    const whole = await run(here, options, inputs, 'qkv');
    const last = (values: Float32Array<ArrayBuffer>) => values.slice((2 * values.length) / 3);
    const { q, k, v, dy } = inputs;
    const alone = await run(
      here,
      { ...options, n: 1 },
      { q: last(q), k: last(k), v: last(v), dy: last(dy) },
      'qkv',
    );
    for (const [name, values] of Object.entries(alone))
      expect(values).toEqual(whole[name]!.slice((2 * whole[name]!.length) / 3));
  });
});

describe('gradients of attention', () => {
  it('are not stacked if they have different numbers of tokens', () => {
    const capabilities = { family: 'plain', maxBindingBytes: 2 ** 27 } as Capabilities;
    const options = { heads: 2, headDim: 8, n: 1, queries: 3, keys: 4, scale: 1, of: 'qkv' } as const;
    expect(() => attentionGradient(capabilities, options)).toThrow(ShapeError);
  });
});
