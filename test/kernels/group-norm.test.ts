import { ShapeError } from '../../src/errors.ts';
import type { Device } from '../../src/kernels/device/device.ts';
import type { Routine } from '../../src/kernels/device/routine.ts';
import type { Stored } from '../../src/kernels/device/storage.ts';
import type { Shape } from '../../src/kernels/device/tensor.ts';
import { ACTIVATIONS } from '../../src/kernels/elementwise/activation.ts';
import {
  affine,
  type GroupNormOptions,
  groupNorm,
  groupNormAffine,
} from '../../src/kernels/norm/group-norm.ts';
import { type NormInputs, referenceAffine, referenceGroupNormAffine } from '../reference/groupnorm.ts';
import { cases } from './cases/group-norm.ts';
import { maxDifference, randomValues, rounded, runRoutine, storingError, testDevice } from './harness.ts';
import { describe, expect, it } from './test-functions.ts';
import { familiesHere, inEachType } from './variants.ts';

const EPS = 2 ** -23;

type Inputs = NormInputs & { readonly x: Float32Array; readonly embedding: Float32Array };

/** Returns inputs with a mean of `offset`, and an embedding if the routine has one. */
const inputsOf = ({ x: [c, n, h, w] }: GroupNormOptions, offset = 0.5): Inputs => ({
  x: randomValues(c * n * h * w, 1).map((v) => v + offset),
  gamma: randomValues(c, 2),
  beta: randomValues(c, 3),
  embedding: randomValues(n * 2 * c, 4),
});

/** Returns the operands of `inputsOf` that are activations. */
function activationsOf(options: GroupNormOptions): Pick<Inputs, 'x' | 'embedding'> {
  const { x, embedding } = inputsOf(options);
  return { x, embedding };
}

async function run(
  device: Device,
  routine: Routine,
  { x, scaleShift }: GroupNormOptions,
  inputs: Inputs,
  yShape: Shape,
  stored?: Stored,
): Promise<Float32Array> {
  const { y } = await runRoutine(device, routine, {
    activations: {
      x: { shape: x, values: inputs.x },
      ...(scaleShift ? { embedding: { shape: [2 * x[0], x[1], 1, 1], values: inputs.embedding } } : {}),
    },
    constants: { gamma: Float32Array.from(inputs.gamma), beta: Float32Array.from(inputs.beta) },
    outputs: { y: yShape },
    stored,
  });
  return y!;
}

const reference = (options: GroupNormOptions, { embedding, ...rest }: Inputs) =>
  referenceGroupNormAffine(options, options.scaleShift ? { ...rest, embedding } : rest);

describe.each(familiesHere)('group norm, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);

  it.for(inEachType(cases))('affine rows of $name', async ({ options, stored }, context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    const [c, n, h, w] = options.x;
    const inputs = { ...inputsOf(options), ...rounded(activationsOf(options), stored) };
    const routine = groupNormAffine(here.capabilities, options);
    const y = await run(here, routine, options, inputs, [2 * c, n, 1, 1], stored);
    const expected = reference(options, inputs);
    // A tiny group can have a tiny variance. The factor is then large, and so is its error.
    const scale = Math.max(1, ...expected.map(Math.abs));
    const { difference, index } = maxDifference(y, expected);
    expect(difference, `at ${index}`).toBeLessThan(
      8 * EPS * scale * Math.sqrt((c / options.groups) * h * w) + storingError(stored, expected),
    );
  });

  it.for(inEachType(cases))('norm, scale, shift and SiLU of $name', async ({ options, stored }, context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    const inputs = { ...inputsOf(options), ...rounded(activationsOf(options), stored) };
    const routine = groupNorm(here.capabilities, { ...options, activation: 'silu' });
    const y = await run(here, routine, options, inputs, options.x, stored);
    const rows = reference(options, inputs);
    const expected = referenceAffine(options.x, inputs.x, rows, 'silu');
    const scale = Math.max(1, ...rows.map(Math.abs));
    const { difference, index } = maxDifference(y, expected);
    expect(difference, `at ${index}`).toBeLessThan(4e-6 * scale + storingError(stored, expected));
  });

  it('keeps its precision if the mean is a thousand standard deviations from 0, also after a constant border', async (context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    const options: GroupNormOptions = { x: [4, 2, 28, 28], groups: 2, eps: 1e-5 };
    for (const border of [0, 60]) {
      const inputs = inputsOf(options, 1000);
      inputs.x.forEach((_, i) => {
        if (i % 784 < border) inputs.x[i] = 1000;
      });
      const routine = groupNorm(here.capabilities, { ...options, activation: 'none' });
      const y = await run(here, routine, options, inputs, options.x);
      const expected = referenceAffine(options.x, inputs.x, reference(options, inputs), 'none');
      // x is a multiple of 6e-5 here, and b = beta - mean·a has an error of a thousand roundings
      expect(maxDifference(y, expected).difference).toBeLessThan(3e-4);
    }
  });

  it('gives a sample the same bytes alone and in a batch', async (context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    for (const { options } of cases.filter(({ options: { x } }) => x[1] > 1)) {
      const [c, n, h, w] = options.x;
      const inputs = inputsOf(options);
      const whole = await run(
        here,
        groupNorm(here.capabilities, { ...options, activation: 'silu' }),
        options,
        inputs,
        options.x,
      );
      const own = { ...options, x: [c, 1, h, w] as const };
      for (const s of [0, n - 1]) {
        const y = await run(
          here,
          groupNorm(here.capabilities, { ...own, activation: 'silu' }),
          own,
          {
            ...inputs,
            x: inputs.x.slice(s * c * h * w, (s + 1) * c * h * w),
            embedding: inputs.embedding.slice(s * 2 * c, (s + 1) * 2 * c),
          },
          own.x,
        );
        expect(y).toEqual(whole.slice(s * c * h * w, (s + 1) * c * h * w));
      }
    }
  });

  const shapes: Shape[] = [
    [1, 1, 1, 1],
    [3, 5, 1, 1],
    [2, 3, 7, 7],
    [5, 2, 5, 3],
    [16, 3, 28, 28],
    [7, 3, 1, 257],
    [2, 1, 64, 65],
  ];
  const activations = inEachType(ACTIVATIONS.map((name) => ({ name, activation: name })));
  it.for(activations)('act(a x + b) with $name', async ({ activation, stored }, context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    for (const x of shapes) {
      const [c, n, h, w] = x;
      const { values, rows } = rounded(
        { values: randomValues(c * n * h * w, 1).map((v) => 6 * v), rows: randomValues(2 * c * n, 2) },
        stored,
      );
      const { y } = await runRoutine(here, affine(here.capabilities, { x, activation }), {
        activations: { x: { shape: x, values }, affine: { shape: [2 * c, n, 1, 1], values: rows } },
        outputs: { y: x },
        stored,
      });
      const expected = referenceAffine(x, values, rows, activation);
      expect(maxDifference(y!, expected).difference).toBeLessThan(4e-6 + storingError(stored, expected));
    }
  });

  it('rejects groups that do not divide the channels', async (context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    expect(() => groupNormAffine(here.capabilities, { x: [10, 1, 4, 4], groups: 4, eps: 1e-5 })).toThrow(
      ShapeError,
    );
  });
});
