import type { Device } from '../../src/kernels/device/device.ts';
import type { Activation } from '../../src/kernels/elementwise/activation.ts';
import type { GroupNormOptions } from '../../src/kernels/norm/group-norm.ts';
import { groupNormGradient, groupNormSums } from '../../src/kernels/norm/group-norm-backward.ts';
import { layerNormGradient } from '../../src/kernels/norm/layer-norm-backward.ts';
import { referenceGroupNormGradients, referenceLayerNormGradients } from '../reference/groupnorm.ts';
import { cases } from './cases/group-norm.ts';
import { shapes } from './cases/shapes.ts';
import { maxDifference, randomValues, runRoutine, testDevice } from './harness.ts';
import { afterAll, describe, expect, it } from './test-functions.ts';
import { familiesHere } from './variants.ts';

const EPS = 2 ** -23;

/** Returns the scale of gradients, which are large for a tiny group with a tiny variance. */
const scaleOf = (values: Float64Array): number => values.reduce((top, v) => Math.max(top, Math.abs(v)), 1);

async function run(
  here: Device,
  options: GroupNormOptions & { readonly activation: Activation },
  inputs: ReturnType<typeof inputsOf>,
) {
  const { x, scaleShift = false, activation } = options;
  const [c, n] = x;
  const acts = activation !== 'none';
  const activations = { x: { shape: x, values: inputs.x }, dy: { shape: x, values: inputs.dy } };
  const embedding = { embedding: { shape: [2 * c, n, 1, 1] as const, values: inputs.embedding } };
  const { gamma, beta } = inputs;
  const { y: dx } = await runRoutine(here, groupNormGradient(here.capabilities, options), {
    activations: { ...activations, ...(scaleShift ? embedding : {}) },
    constants: { gamma, ...(acts ? { beta } : {}) },
    outputs: { y: x },
  });
  const { y: sums } = await runRoutine(here, groupNormSums(here.capabilities, options), {
    activations: { ...activations, ...(acts && scaleShift ? embedding : {}) },
    constants: acts ? { gamma, beta } : {},
    outputs: { y: [2 * c, n, 1, 1] },
  });
  return { dx: dx!, sums: sums! };
}

const inputsOf = ({ x: [c, n, h, w] }: GroupNormOptions, offset = 0.5) => ({
  x: randomValues(c * n * h * w, 1).map((v) => v + offset),
  gamma: randomValues(c, 2),
  beta: randomValues(c, 3),
  embedding: randomValues(n * 2 * c, 4),
  dy: randomValues(c * n * h * w, 5),
});

const reference = (
  options: GroupNormOptions & { readonly activation: Activation },
  { embedding, dy, ...rest }: ReturnType<typeof inputsOf>,
) =>
  referenceGroupNormGradients(
    options,
    options.activation,
    options.scaleShift ? { ...rest, embedding } : rest,
    dy,
  );

describe.each(familiesHere)('backward of norms, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);
  afterAll(async () => (await device)?.close());

  it.for(cases.filter(({ options: { x } }) => x[0] < 48 || x[3] < 28))(
    'group norm $name',
    async ({ options }, { skip }) => {
      const here = await device;
      if (!here) return skip(`this adapter has no ${family} family`);
      const [c, n, h, w] = options.x;
      for (const activation of ['none', 'silu'] as const) {
        const inputs = inputsOf(options);
        const { dx, sums } = await run(here, { ...options, activation }, inputs);
        const expected = reference({ ...options, activation }, inputs);
        const group = (c / options.groups) * h * w;
        expect(maxDifference(dx, expected.x).difference).toBeLessThan(
          8 * EPS * scaleOf(expected.x) * Math.sqrt(group),
        );
        // For each sample alone, B is the gradient of the shift, and A that of gamma.
        const shifts = { ...options, activation, scaleShift: true, x: [c, 1, h, w] as const };
        for (let i = 0; i < n; i++) {
          const one = (values: Float32Array) =>
            values.slice((i * values.length) / n, ((i + 1) * values.length) / n);
          const rows = options.scaleShift ? one(inputs.embedding) : new Float32Array(2 * c);
          const alone = reference(shifts, {
            ...inputs,
            x: one(inputs.x),
            dy: one(inputs.dy),
            embedding: rows,
          });
          const actual = one(sums);
          const bound = 16 * EPS * h * w * Math.max(1, scaleOf(expected.x));
          expect(maxDifference(actual.slice(c), alone.embedding.slice(c)).difference).toBeLessThan(bound);
          const along = actual.slice(0, c).map((v, j) => v * (1 + rows[j]!));
          expect(maxDifference(along, alone.gamma).difference).toBeLessThan(bound);
        }
      }
    },
  );

  it('keeps its precision if the mean is a thousand standard deviations from 0', async ({ skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    const options = { x: [4, 2, 28, 28], groups: 2, eps: 1e-5, activation: 'silu' } as const;
    const inputs = inputsOf(options, 1000);
    const { dx } = await run(here, options, inputs);
    const expected = reference(options, inputs);
    expect(maxDifference(dx, expected.x).difference).toBeLessThan(1e-5 * scaleOf(expected.x));
  });

  it('gives a sample the same bytes alone and in a batch', async ({ skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    const options = { x: [12, 5, 7, 7], groups: 4, eps: 1e-5, activation: 'silu', scaleShift: true } as const;
    const inputs = inputsOf(options);
    const { dx } = await run(here, options, inputs);
    const last = (values: Float32Array<ArrayBuffer>) => values.slice((values.length / 5) * 4);
    const alone = await run(
      here,
      { ...options, x: [12, 1, 7, 7] },
      { ...inputs, x: last(inputs.x), dy: last(inputs.dy), embedding: last(inputs.embedding) },
    );
    expect(alone.dx).toEqual(dx.slice(alone.dx.length * 4));
  });

  it.for(shapes.map((x) => ({ x })))('layer norm of $x', async ({ x }, { skip }) => {
    const here = await device;
    if (!here) return skip(`this adapter has no ${family} family`);
    const [c, n] = x;
    const inputs = inputsOf({ x, groups: 1, eps: 1e-5 });
    const scale = { scale: { shape: [c, n, 1, 1] as const, values: scalesOf(inputs.embedding, n, c) } };
    for (const [gamma, modulated] of [
      [true, false],
      [false, true],
      [true, true],
    ] as const) {
      const routine = layerNormGradient(here.capabilities, { x, eps: 1e-5, gamma, modulated });
      const { y } = await runRoutine(here, routine, {
        activations: {
          x: { shape: x, values: inputs.x },
          dy: { shape: x, values: inputs.dy },
          ...(modulated ? scale : {}),
        },
        constants: gamma ? { gamma: inputs.gamma } : {},
        outputs: { y: x },
      });
      const ones = new Float32Array(c).fill(1);
      const expected = referenceLayerNormGradients(
        { x, eps: 1e-5 },
        {
          x: inputs.x,
          gamma: gamma ? inputs.gamma : ones,
          beta: inputs.beta,
          ...(modulated ? { embedding: inputs.embedding } : {}),
        },
        inputs.dy,
      ).x;
      // For two almost equal channels only rounding errors remain, multiplied by rstd, which is up to 316.
      const bound = c > 2 ? 16 * EPS * scaleOf(expected) * Math.sqrt(c) : 1e-3;
      expect(maxDifference(y!, expected).difference).toBeLessThan(bound);
    }
  });
});

/** Returns the first halves of rows [n, 2c]. */
const scalesOf = (embedding: Float32Array, n: number, c: number): Float32Array =>
  Float32Array.from({ length: n * c }, (_, k) => embedding[Math.floor(k / c) * 2 * c + (k % c)]!);
