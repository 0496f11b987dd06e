import { ShapeError } from '../../src/errors.ts';
import type { Device } from '../../src/kernels/device/device.ts';
import { type LinearOptions, linear } from '../../src/kernels/gemm/linear.ts';
import { referenceLinear } from '../reference/linear.ts';
import { cases } from './cases/linear.ts';
import { EPS, F16_EPS, inHalves, maxDifference, rounded, storingError, testDevice } from './harness.ts';
import { linearInputs, runLinear } from './run-linear.ts';
import { afterAll, describe, expect, it } from './test-functions.ts';
import { familiesHere, inEachType } from './variants.ts';

describe.each(familiesHere)('linear, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);
  afterAll(async () => (await device)?.close());

  it.for(inEachType(cases))('$name', async ({ options, stored }, context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    const inputs = rounded(linearInputs(options), stored);
    const y = await runLinear(here, options, inputs, { stored });
    const terms = options.x[0];
    // A sum of random terms grows as sqrt(terms), and so does the standard deviation of its rounding errors.
    const rounding =
      EPS * (8 + terms) + (inHalves(family, options.weights) ? 2 * F16_EPS * Math.sqrt(terms) : 0);
    const expected = referenceLinear(options, inputs);
    const { difference, index } = maxDifference(y, expected);
    expect(difference, `at ${index}`).toBeLessThan(rounding + storingError(stored, expected));
  });

  it('gives a sample the same bytes alone and in a batch', async (context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    for (const { options } of cases.filter(({ options: { x } }) => x[1] > 1)) {
      const [c, n, h, w] = options.x;
      const inputs = linearInputs(options);
      const whole = await runLinear(here, options, inputs);
      for (const s of [0, n - 1]) {
        const part = (values: ArrayLike<number>) => {
          const size = values.length / n;
          return Float32Array.from(values).slice(s * size, (s + 1) * size);
        };
        const alone = await runLinear(
          here,
          { ...options, x: [c, 1, h, w] },
          { ...inputs, x: part(inputs.x), ...(inputs.residual ? { residual: part(inputs.residual) } : {}) },
        );
        expect(new Uint32Array(alone.buffer)).toEqual(new Uint32Array(part(whole).buffer));
      }
    }
  });
});

describe('linear shapes', () => {
  it('are rejected if they make no layer', () => {
    const capabilities = { family: 'plain', subgroupSize: 0 } as Device['capabilities'];
    const options: LinearOptions = { x: [0, 1, 1, 1], outChannels: 4, bias: true, weights: 'f32' };
    expect(() => linear(capabilities, options)).toThrow(ShapeError);
    expect(() => linear(capabilities, options)).toThrow('[0,1,1,1]');
  });
});
