import type { Shape } from '../../src/kernels/device/tensor.ts';
import { posterior, posteriorGradient } from '../../src/kernels/diffusion/dataset-posterior.ts';
import { flatten, unflatten } from '../../src/kernels/elementwise/flatten.ts';
import { maxDifference, randomValues, runRoutine, testDevice } from './harness.ts';
import { describe, expect, it } from './test-functions.ts';

const SCALES = [0.5, 40, 3];

// Fewer rows than invocations per column, as many, and many more; columns that do not fill vec4s, and more columns than a
// workgroup has.
describe.each([
  [1, 3],
  [16, 16],
  [37, 5],
  [300, 18],
])('posterior of %i rows, %i samples', (rows, n) => {
  const shape: Shape = [rows, n, 1, 1];
  // Rows are in [n, c] order, as in all tests.
  const x = randomValues(rows * n, 1);
  const dy = randomValues(rows * n, 2);
  const half = randomValues(rows, 3);
  const level = Uint32Array.from({ length: n }, (_, s) => (s * 2) % SCALES.length);
  const scaleOf = (s: number) => SCALES[level[s]!]!;
  const p = new Float64Array(rows * n);
  for (let s = 0; s < n; s++) {
    const logits = Array.from(half, (h, i) => scaleOf(s) * (x[s * rows + i]! - h));
    const top = Math.max(...logits);
    const total = logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0);
    logits.forEach((logit, i) => {
      p[s * rows + i] = Math.exp(logit - top) / total;
    });
  }
  const constants = { half, level, scales: Float32Array.from(SCALES) };

  it('and its gradient equal the reference in f64', async () => {
    const device = await testDevice();
    const options = { x: shape, levels: SCALES.length };
    const { y } = await runRoutine(device, posterior(device.capabilities, options), {
      activations: { x: { shape, values: x } },
      constants,
      outputs: { y: shape },
    });
    expect(maxDifference(y!, p).difference).toBeLessThan(2e-5);
    const { y: dx } = await runRoutine(device, posteriorGradient(device.capabilities, options), {
      activations: { p: { shape, values: y! }, dy: { shape, values: dy } },
      constants,
      outputs: { y: shape },
    });
    const expected = p.map((share, at) => {
      const s = Math.floor(at / rows);
      let mean = 0;
      for (let i = 0; i < rows; i++) mean += p[s * rows + i]! * dy[s * rows + i]!;
      return scaleOf(s) * share * (dy[at]! - mean);
    });
    expect(maxDifference(dx!, expected).difference).toBeLessThan(40 * 4e-5);
  });
});

it.each([[2, 3, 5, 7] as Shape, [1, 8, 28, 28] as Shape, [3, 1, 1, 2] as Shape])(
  'images as columns and back, %i channels of %i samples',
  async (...whole) => {
    const [c, n, h, w] = whole as unknown as Shape;
    const device = await testDevice();
    const values = randomValues(c * n * h * w, 1);
    const shape: Shape = [c, n, h, w];
    const flat: Shape = [c * h * w, n, 1, 1];
    const { y } = await runRoutine(device, flatten(device.capabilities, { x: shape }), {
      activations: { x: { shape, values } },
      outputs: { y: flat },
    });
    expect(y).toEqual(values); // [n, c·h·w] is [n, c, h, w]
    const back = await runRoutine(device, unflatten(device.capabilities, { y: shape }), {
      activations: { x: { shape: flat, values } },
      outputs: { y: shape },
    });
    expect(back.y).toEqual(values);
  },
);
