// Tests the gradients of mixing x_t and of the errors, and those of picking samples and rows of tables.

import type { Shape } from '../../src/kernels/device/tensor.ts';
import { type Distance, errorsGradient, type Residual } from '../../src/kernels/diffusion/error-reduction.ts';
import { type NoiseSource, scaleByLevel, slotsGradient } from '../../src/kernels/diffusion/mix.ts';
import { noiseKeys, normal } from '../../src/kernels/diffusion/philox.ts';
import { gatherGradient } from '../../src/kernels/elementwise/gather.ts';
import { sumPicked, sumSamples } from '../../src/kernels/elementwise/pick-samples.ts';
import { at, build } from '../reference/elementwise.ts';
import { type NoiseFunction, referenceErrorsGradients, referenceMix } from '../reference/noise.ts';
import { maxDifference, randomValues, runRoutine, testDevice } from './harness.ts';
import { afterAll, describe, expect, it } from './test-functions.ts';
import { familiesHere } from './variants.ts';

const EPS = 2 ** -23;
const shapes: readonly Shape[] = [
  [1, 1, 1, 1],
  [1, 5, 1, 3],
  [3, 3, 7, 7],
  [4, 1, 7, 7],
  [1, 9, 8, 32],
];
const levels = Float32Array.from([1, 0, 0, 1, 0.9, 0.4, 1, 0, 0.5, 0.8, -0.6, 1.2, 0.1, 0.99, 1.01, -0.05]);
const spread = (n: number, count: number, step: number) =>
  Uint32Array.from({ length: n }, (_, i) => (step * i) % count);
const seedOf = (i: number) => [0x5eed5eed5eedn, 7n][i % 2]!;
const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((sum, v, i) => sum + v * b[i]!, 0);

describe.each(familiesHere)('backward of evaluations, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);
  afterAll(async () => (await device)?.close());

  it.for(shapes.map((xt) => ({ xt })))('errors of $xt', async ({ xt: shape }, { skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    const [c, n, h, w] = shape;
    const elements = c * h * w;
    const table = randomValues(5 * elements, 9).map((v) => 2 * v);
    const [level, noise] = [spread(n, 4, 3), spread(n, 5, 7)];
    const kinds: readonly [Distance, Residual, NoiseSource][] = [
      ['l2', 'eps', { kind: 'philox' }],
      ['l2', 'x0', { kind: 'table', count: 5 }],
      ['l1', 'eps', { kind: 'table', count: 5 }],
      ['huber', 'eps', { kind: 'philox' }],
      ['huber', 'x0', { kind: 'table', count: 5 }],
    ];
    for (const [distance, residual, source] of kinds)
      for (const extra of [0, c]) {
        const predicted: Shape = [c + extra, n, h, w];
        const prediction = { shape: predicted, values: randomValues((c + extra) * n * h * w, 2) };
        const xt = { shape, values: randomValues(n * elements, 3) };
        const dy = randomValues(n, 4);
        const eps: NoiseFunction = (k, e, i) =>
          source.kind === 'table' ? table[k * elements + e]! : normal({ seed: seedOf(i) }, k, e);
        const expected = referenceErrorsGradients(
          distance,
          prediction,
          xt,
          levels,
          { slot: [], level, noise },
          eps,
          dy,
          residual,
        );
        for (const of of ['prediction', 'xt'] as const) {
          const routine = errorsGradient(here.capabilities, {
            prediction: predicted,
            xt: shape,
            distance,
            residual,
            noise: source,
            of,
          });
          const { y } = await runRoutine(here, routine, {
            activations: { prediction, xt, dy: { shape: [1, n, 1, 1], values: dy } },
            constants: {
              levels,
              level,
              noise: noiseKeys(noise, seedOf),
              ...(source.kind === 'table' ? { noises: table } : {}),
            },
            outputs: { y: of === 'xt' ? shape : predicted },
          });
          const top = expected[of].reduce((most, v) => Math.max(most, Math.abs(v)), 1e-30);
          expect(maxDifference(y!, expected[of]).difference, `${distance} ${residual} ${of}`).toBeLessThan(
            2e-5 * top,
          );
        }
      }
  });

  it('an l1 error of 0 has a gradient of 0', async ({ skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    const xt: Shape = [1, 1, 2, 2];
    const options = { prediction: xt, xt, distance: 'l1', noise: { kind: 'table', count: 1 } } as const;
    const routine = errorsGradient(here.capabilities, { ...options, of: 'prediction' });
    const noises = Float32Array.from([1, -2, 0.5, 3]);
    const { y } = await runRoutine(here, routine, {
      activations: {
        prediction: { shape: xt, values: [1, -2, 0.25, 4] },
        xt: { shape: xt, values: [0, 0, 0, 0] },
        dy: { shape: [1, 1, 1, 1], values: [4] },
      },
      constants: {
        levels: Float32Array.from([0, 1, 1, 0]),
        level: Uint32Array.of(0),
        noise: Uint32Array.of(0),
        noises,
      },
      outputs: { y: xt },
    });
    expect(Array.from(y!).map((v) => v + 0)).toEqual([0, 0, -1, 1]);
  });

  it.for(shapes.map((y) => ({ y })))('slots and levels of $y', async ({ y: shape }, { skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    const [c, n, h, w] = shape;
    const elements = c * h * w;
    const dy = { shape, values: randomValues(n * elements, 1) };
    // Samples share slots, and slot 1 has no sample.
    const [slot, level] = [spread(n, 3, 2).map((s) => (s === 1 ? 2 : s)), spread(n, 4, 3)];
    const { y } = await runRoutine(here, slotsGradient(here.capabilities, { dy: shape, slots: 3 }), {
      activations: { dy },
      constants: { slot, level, levels },
      outputs: { y: [1, 3, 1, elements] },
    });
    // <mix(slots) without noise, dy> = <slots, gradient>.
    const images = randomValues(3 * elements, 2);
    const mixed = referenceMix(shape, images, levels, { slot, level, noise: slot }, () => 0);
    expect(Math.abs(dot(mixed, dy.values) - dot(images, y!))).toBeLessThan(4 * EPS * elements * n);
    expect(y!.slice(elements, 2 * elements)).toEqual(new Float32Array(elements));
    const { y: scaled } = await runRoutine(here, scaleByLevel(here.capabilities, { x: shape }), {
      activations: { x: dy },
      constants: { level, levels },
      outputs: { y: shape },
    });
    const expected = dy.values.map((v, k) => v * levels[4 * level[Math.floor(k / elements)]!]!);
    expect(maxDifference(scaled!, expected).difference).toBeLessThan(EPS);
  });

  it.for(shapes.map((x) => ({ x })))('picked samples of $x', async ({ x: shape }, { skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    const [c, n, h, w] = shape;
    const dy = { shape, values: randomValues(c * n * h * w, 1) };
    const index = Uint32Array.from({ length: n }, (_, i) => (i % 3 === 2 ? 7 : (3 * i) % 4)); // 7 is out of range
    const samples = 4;
    const { y } = await runRoutine(here, sumPicked(here.capabilities, { dy: shape, samples }), {
      activations: { dy },
      constants: { index },
      outputs: { y: [c, samples, h, w] },
    });
    const expected = build([c, samples, h, w], (m, j, row, column) =>
      index.reduce(
        (sum, at0, i) => sum + (Math.min(at0, 3) === m ? at(dy.values, shape, i, j, row, column) : 0),
        0,
      ),
    );
    expect(maxDifference(y!, expected).difference).toBeLessThan(n * EPS);
    const { y: summed } = await runRoutine(here, sumSamples(here.capabilities, { x: shape }), {
      activations: { x: dy },
      outputs: { y: [c, 1, h, w] },
    });
    const wantSummed = build([c, 1, h, w], (_, j, row, column) =>
      index.reduce((sum, _at, i) => sum + at(dy.values, shape, i, j, row, column), 0),
    );
    expect(maxDifference(summed!, wantSummed).difference).toBeLessThan(n * EPS);
  });

  it.for([
    { entries: 1, channels: 1, n: 1 },
    { entries: 10, channels: 37, n: 3 },
    { entries: 5, channels: 64, n: 17 },
  ])('a table of $entries by $channels, gathered $n times', async ({ entries, channels, n }, { skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    const values = randomValues(channels * n, 1);
    const index = Uint32Array.from({ length: n }, (_, i) => (i === 1 ? 99 : (3 * i) % entries)); // 99 stands for the last
    const { y } = await runRoutine(here, gatherGradient(here.capabilities, { entries, channels, n }), {
      activations: { dy: { shape: [channels, n, 1, 1], values } },
      constants: { index },
      outputs: { y: [entries, 1, 1, channels] },
    });
    const expected = new Float64Array(entries * channels);
    index.forEach((entry, i) => {
      const row = Math.min(entry, entries - 1);
      for (let j = 0; j < channels; j++) expected[row * channels + j]! += values[i * channels + j]!;
    });
    // The gradient has the layout of the constant: the shape's only sample is [entries, channels].
    expect(maxDifference(y!, expected).difference).toBeLessThan(n * EPS);
  });
});
