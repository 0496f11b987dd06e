// Tests both ends of an evaluation, mixing x_t and reducing the error, which must use the same noise.

import { ShapeError } from '../../src/errors.ts';
import type { Shape } from '../../src/kernels/device/tensor.ts';
import { type Distance, errorReduction, type Residual } from '../../src/kernels/diffusion/error-reduction.ts';
import { mix, type NoiseSource } from '../../src/kernels/diffusion/mix.ts';
import { noiseKeys, normal } from '../../src/kernels/diffusion/philox.ts';
import { type BatchIndices, type NoiseFunction, referenceErrors, referenceMix } from '../reference/noise.ts';
import { maxDifference, randomValues, runRoutine, testDevice } from './harness.ts';
import { describe, expect, it } from './test-functions.ts';
import { familiesHere } from './variants.ts';

const KINDS: readonly { readonly distance: Distance; readonly residual?: Residual }[] = [
  { distance: 'l2' },
  { distance: 'l1' },
  { distance: 'huber' },
  { distance: 'l2', residual: 'x0' },
  { distance: 'huber', residual: 'x0' },
];
const philox = { kind: 'philox' } as const;
/** Every sample of a batch has its own seed, which depends only on its index i. */
const seedOf = (i: number) => [0x5eed5eed5eedn, 7n, 0xffff_ffff_0000_0001n][i % 3]!;

const shapes: readonly Shape[] = [
  [1, 1, 1, 1],
  [1, 5, 1, 3],
  [3, 2, 5, 3],
  [4, 3, 7, 7],
  [1, 1, 8, 31],
  [1, 2, 8, 32],
  [1, 3, 3, 86],
  [1, 9, 28, 28],
  [4, 2, 32, 32],
];
const sources = (elements: number): { source: NoiseSource; table: Float32Array<ArrayBuffer> }[] => [
  { source: philox, table: new Float32Array(0) },
  { source: { kind: 'table', count: 5 }, table: randomValues(5 * elements, 9).map((v) => 2 * v) },
];

interface Batch extends BatchIndices {
  readonly slot: Uint32Array<ArrayBuffer>;
  readonly level: Uint32Array<ArrayBuffer>;
  readonly noise: Uint32Array<ArrayBuffer>;
  /** Rows of `noiseKeys`. */
  readonly keys: Uint32Array<ArrayBuffer>;
}

/** Returns indices of samples that depend only on i + first, so that a batch can be split. */
const indices = (n: number, first = 0): Batch => {
  const noise = Uint32Array.from({ length: n }, (_, i) => (7 * (i + first)) % 5);
  return {
    slot: Uint32Array.from({ length: n }, (_, i) => (5 * (i + first)) % 3),
    level: Uint32Array.from({ length: n }, (_, i) => (3 * (i + first)) % 4),
    noise,
    keys: noiseKeys(noise, (i) => seedOf(i + first)),
  };
};
const levels = Float32Array.from([
  1, 0.01, 0, 1, 0.9, 0.4, 1, 0, 0.5, 0.8, -0.6, 1.2, 0.1, 0.99, 1.01, -0.05,
]);

const sampleOf = ([c, n, h, w]: Shape, values: Float32Array, s: number): Float32Array => {
  const size = values.length / n;
  expect(size % (h * w), `${c} channels`).toBe(0);
  return values.slice(s * size, (s + 1) * size);
};

describe.each(familiesHere)('noise in and errors out, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);

  it.for(shapes.map((y) => ({ y })))('mix of $y', async ({ y: shape }, context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    const [c, n, h, w] = shape;
    const elements = c * h * w;
    const slots = randomValues(3 * elements, 1);
    for (const { source, table } of sources(elements)) {
      const eps: NoiseFunction = (k, e, i) =>
        source.kind === 'table' ? table[k * elements + e]! : normal({ seed: seedOf(i) }, k, e);
      const run = async (y: Shape, batch: Batch) => {
        const { slot, level, keys: noise } = batch;
        const noises = table.length > 0 ? { noises: table } : {};
        const constants = { slots, levels, slot, level, noise, ...noises };
        const routine = mix(here.capabilities, { y, noise: source });
        return (await runRoutine(here, routine, { constants, outputs: { y } })).y!;
      };
      const whole = await run(shape, indices(n));
      const expected = referenceMix(shape, slots, levels, indices(n), eps);
      expect(maxDifference(whole, expected).difference).toBeLessThan(3e-6);
      const last = await run([c, 1, h, w], indices(1, n - 1));
      expect(last).toEqual(sampleOf(shape, whole, n - 1));
    }
  });

  it.for(shapes.map((xt) => ({ xt })))('errors of $xt', async ({ xt: shape }, context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    const [c, n, h, w] = shape;
    const elements = c * h * w;
    for (const extra of [0, c])
      for (const { source, table } of sources(elements))
        for (const { distance, residual } of KINDS) {
          const predicted: Shape = [c + extra, n, h, w];
          const prediction = { shape: predicted, values: randomValues((c + extra) * n * h * w, 2) };
          const xt = { shape, values: randomValues(n * elements, 3) };
          const run = async (s: number, samples: number) => {
            const part = ({ shape: [ch], values }: typeof xt) => ({
              shape: [ch, samples, h, w] as const,
              values: values.slice(s * ch * h * w, (s + samples) * ch * h * w),
            });
            const activations = { prediction: part(prediction), xt: part(xt) };
            const { level, keys: noise } = indices(samples, s);
            const routine = errorReduction(here.capabilities, {
              prediction: activations.prediction.shape,
              xt: activations.xt.shape,
              noise: source,
              distance,
              residual,
            });
            const constants = { levels, level, noise, ...(table.length > 0 ? { noises: table } : {}) };
            const outputs = { y: [1, samples, 1, 1] as const };
            return (await runRoutine(here, routine, { activations, constants, outputs })).y!;
          };
          const eps: NoiseFunction = (k, e, i) =>
            source.kind === 'table' ? table[k * elements + e]! : normal({ seed: seedOf(i) }, k, e);
          const whole = await run(0, n);
          const expected = referenceErrors(distance, prediction, xt, levels, indices(n), eps, residual);
          // A sum of many elements is exact to a millionth; in a sum of few, the rounding of one element is visible.
          const relative = whole.map((v, i) => v / expected[i]!);
          const tolerance = elements >= 100 ? 1e-6 : 2e-5;
          expect(
            maxDifference(
              relative,
              expected.map(() => 1),
            ).difference,
          ).toBeLessThan(tolerance);
          expect(await run(n - 1, 1)).toEqual(whole.slice(n - 1));
        }
  });

  it('rejects a prediction with fewer channels than x_t', async (context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    const options = { xt: [4, 1, 8, 8], prediction: [3, 1, 8, 8], noise: philox, distance: 'l2' } as const;
    expect(() => errorReduction(here.capabilities, options)).toThrow(ShapeError);
  });
});
