import type { Shape } from '../../src/kernels/device/tensor.ts';
import { sumColumns, sumPixels } from '../../src/kernels/norm/sums.ts';
import { shapes } from './cases/shapes.ts';
import { maxDifference, randomValues, runRoutine, testDevice } from './harness.ts';
import { afterAll, describe, expect, it } from './test-functions.ts';
import { familiesHere } from './variants.ts';

const EPS = 2 ** -23;

/**
 * Lengths around the one from which several groups of invocations sum a row, and the longest sums of a training batch.
 */
const long: readonly Shape[] = [
  [3, 2, 32, 64],
  [3, 1, 1, 2049],
  [2, 3, 45, 61],
  [1, 1, 128, 128],
  [2, 1, 1, 16390],
  [3, 64, 32, 32],
];

describe.each(familiesHere)('sums, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);
  afterAll(async () => (await device)?.close());

  it.for([...shapes, ...long].map((x) => ({ x })))(
    'over pixels and columns of $x',
    async ({ x }, { skip }) => {
      const here = await device;
      if (!here) return skip(`this adapter has no ${family} family`);
      const [c, n, h, w] = x;
      const pixels = h * w;
      // With a mean far from 0, the errors of adding values one by one are visible.
      const values = randomValues(c * n * pixels, 1).map((v) => 1 + v);
      const overPixels = new Float64Array(n * c);
      values.forEach((v, i) => {
        overPixels[Math.floor(i / pixels)]! += v;
      });
      const overColumns = Float64Array.from({ length: c }, (_, i) => {
        let sum = 0;
        for (let s = 0; s < n; s++) sum += overPixels[s * c + i]!;
        return sum;
      });
      const activations = { x: { shape: x, values } };
      const { y: rows } = await runRoutine(here, sumPixels(here.capabilities, { x }), {
        activations,
        outputs: { y: [c, n, 1, 1] },
      });
      expect(maxDifference(rows!, overPixels).difference).toBeLessThan(8 * EPS * pixels);
      const { y: sums } = await runRoutine(here, sumColumns(here.capabilities, { x }), {
        activations,
        outputs: { y: [c, 1, 1, 1] },
      });
      expect(maxDifference(sums!, overColumns).difference).toBeLessThan(8 * EPS * n * pixels);
    },
  );
});
