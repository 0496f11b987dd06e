import { ShapeError } from '../../src/errors.ts';
import type { Device, Family } from '../../src/kernels/device/device.ts';
import { MAX_F16 } from '../../src/kernels/device/half.ts';
import type { Routine } from '../../src/kernels/device/routine.ts';
import type { Shape } from '../../src/kernels/device/tensor.ts';
import { ACTIVATIONS, type Activation } from '../../src/kernels/elementwise/activation.ts';
import {
  activate,
  activationGradient,
  add,
  addImage,
  addRows,
  concat,
  copyChannels,
  gatedAdd,
  geglu,
  multiply,
  scaled,
  scaleRows,
} from '../../src/kernels/elementwise/elementwise.ts';
import { gather } from '../../src/kernels/elementwise/gather.ts';
import { pickSamples } from '../../src/kernels/elementwise/pick-samples.ts';
import {
  averagePool2x2,
  depthToSpace,
  pick,
  upsampleNearest,
} from '../../src/kernels/elementwise/pixel-resize.ts';
import { type LayerNormOptions, layerNorm } from '../../src/kernels/norm/layer-norm.ts';
import { referenceActivation, referenceSlope } from '../reference/activation.ts';
import {
  at,
  build,
  referenceAveragePool2x2,
  referenceDepthToSpace,
  referencePick,
  referenceUpsample,
} from '../reference/elementwise.ts';
import { referenceLayerNorm } from '../reference/groupnorm.ts';
import { shapes } from './cases/shapes.ts';
import {
  maxDifference,
  type RunInputs,
  randomValues,
  rounded,
  runRoutine,
  storingError,
  testDevice,
} from './harness.ts';
import { describe, expect, it } from './test-functions.ts';
import { typesHere } from './variants.ts';

const EPS = 2 ** -23;
const count = ([c, n, h, w]: Shape) => c * n * h * w;

// The subgroup family uses the plain family's kernels here.
const FAMILIES: readonly Family[] = ['plain', 'tile'];

const VARIANTS = FAMILIES.flatMap((family) => typesHere.map((stored) => ({ family, stored })));

describe.each(VARIANTS)('elementwise ops, $family, stored as $stored', ({ family, stored }) => {
  const device = testDevice({ family }).catch(() => undefined);
  const missing = `the ${family} family is not possible on this adapter`;
  const random = (shape: Shape, seed: number) => ({
    shape,
    ...rounded({ values: randomValues(count(shape), seed) }, stored),
  });
  const storing = (results: ArrayLike<number>) => storingError(stored, results);
  const run = async (
    make: (device: Device) => Routine,
    y: Shape,
    inputs: Omit<RunInputs, 'outputs'>,
  ): Promise<Float32Array> => {
    const here = (await device)!;
    const results = await runRoutine(here, make(here), { ...inputs, outputs: { y }, stored });
    return results.y!;
  };

  it.for(shapes.map((x) => ({ x })))('add, addRows and geglu of $x', async ({ x }, context) => {
    if (!(await device)) return context.skip(missing);
    const [c, n] = x;
    const [x1, x2, rows] = [random(x, 1), random(x, 2), random([c, n, 1, 1], 3)];
    const sum = await run((d) => add(d.capabilities, { x, scale: 0.7 }), x, { activations: { x1, x2 } });
    const expectedSum = x1.values.map((v, i) => 0.7 * (v + x2.values[i]!));
    expect(maxDifference(sum, expectedSum).difference).toBeLessThan(2 * EPS + storing(expectedSum));

    const shifted = await run((d) => addRows(d.capabilities, { x, scale: 0.5 }), x, {
      activations: { x: x1, embedding: rows },
    });
    const expectedShifted = build(
      x,
      (i, j, row, column) => 0.5 * at(x1.values, x, i, j, row, column) + rows.values[i * c + j]!,
    );
    expect(maxDifference(shifted, expectedShifted).difference).toBeLessThan(
      2 * EPS + storing(expectedShifted),
    );

    const gated = await run((d) => geglu(d.capabilities, { x }), x, { activations: { x1, x2 } });
    const expectedGated = x1.values.map((v, i) => v * referenceActivation('gelu', x2.values[i]!));
    expect(maxDifference(gated, expectedGated).difference).toBeLessThan(1e-6 + storing(expectedGated));
  });

  it.for(shapes.map((x) => ({ x })))('gatedAdd and addImage of $x', async ({ x }, context) => {
    if (!(await device)) return context.skip(missing);
    const [c, n, h, w] = x;
    const [x1, x2, gate] = [random(x, 1), random(x, 2), random([c, n, 1, 1], 3)];
    const gated = await run((d) => gatedAdd(d.capabilities, { x }), x, { activations: { x1, x2, gate } });
    const expectedGated = build(
      x,
      (i, j, row, column) =>
        at(x1.values, x, i, j, row, column) + gate.values[i * c + j]! * at(x2.values, x, i, j, row, column),
    );
    expect(maxDifference(gated, expectedGated).difference).toBeLessThan(2 * EPS + storing(expectedGated));

    const image = randomValues(c * h * w, 4);
    const sum = await run((d) => addImage(d.capabilities, { x }), x, {
      activations: { x: x1 },
      constants: { image },
    });
    const expectedSum = build(
      x,
      (i, j, row, column) => at(x1.values, x, i, j, row, column) + image[(j * h + row) * w + column]!,
    );
    expect(maxDifference(sum, expectedSum).difference).toBeLessThan(2 * EPS + storing(expectedSum));
  });

  it.for([
    { x: [1, 1, 1, 1] as Shape, block: 1 },
    { x: [4, 2, 3, 5] as Shape, block: 2 },
    { x: [18, 3, 4, 4] as Shape, block: 3 },
    { x: [32, 2, 7, 6] as Shape, block: 2 },
    { x: [48, 1, 2, 3] as Shape, block: 4 },
  ])('depth to space of $x in blocks of $block', async ({ x: shape, block }, context) => {
    if (!(await device)) return context.skip(missing);
    const x = random(shape, 1);
    const y: Shape = [shape[0] / block ** 2, shape[1], block * shape[2], block * shape[3]];
    const actual = await run((d) => depthToSpace(d.capabilities, { x: shape, block }), y, {
      activations: { x },
    });
    expect(maxDifference(actual, referenceDepthToSpace(x.values, shape, block)).difference).toBe(0);
    const { capabilities } = (await device)!;
    expect(() => depthToSpace(capabilities, { x: [6, 1, 1, 1], block: 2 })).toThrow(ShapeError);
  });

  /** Values that matter for an exponential: a fine grid around 0, and both ends of the range. */
  const all = [
    ...Array.from({ length: 2001 }, (_, i) => (i - 1000) / 50),
    ...[50, 51, 86, 87, 88, 89, 100, 104, 1e3, 1e6, 1e12, 1e30, 3e38].flatMap((v) => [v, -v]),
  ].filter((v) => stored === 'f32' || Math.abs(v) <= MAX_F16);
  const { wide } = rounded({ wide: Float32Array.from(all) }, stored);
  it.for(ACTIVATIONS)('%s of values of all magnitudes', async (activation: Activation, context) => {
    if (!(await device)) return context.skip(missing);
    const x: Shape = [1, 1, 1, wide.length];
    const y = await run((d) => activate(d.capabilities, { x, activation }), x, {
      activations: { x: { shape: x, values: wide } },
    });
    const relative = y.map((v, i) => v / Math.max(1, Math.abs(wide[i]!)));
    const expected = Array.from(wide, (v) => referenceActivation(activation, v) / Math.max(1, Math.abs(v)));
    expect(maxDifference(relative, expected).difference).toBeLessThan(1e-6 + storing([1]));

    // The derivative times dy, here 0.5; relu's derivative at 0 is 0.
    const slopes = await run((d) => activationGradient(d.capabilities, { x, activation }), x, {
      activations: {
        x: { shape: x, values: wide },
        dy: { shape: x, values: new Float32Array(wide.length).fill(0.5) },
      },
    });
    const wantSlopes = Array.from(wide, (v) => 0.5 * referenceSlope(activation, v));
    expect(maxDifference(slopes, wantSlopes).difference).toBeLessThan(1e-6 + storing([1]));
  });

  it.for(shapes.map((x) => ({ x })))('multiply, scaled and scaleRows of $x', async ({ x }, context) => {
    if (!(await device)) return context.skip(missing);
    const [x1, x2, gate] = [random(x, 1), random(x, 2), random([x[0], x[1], 1, 1], 3)];
    const product = await run((d) => multiply(d.capabilities, { x }), x, { activations: { x1, x2 } });
    const wantProduct = x1.values.map((v, k) => v * x2.values[k]!);
    expect(maxDifference(product, wantProduct).difference).toBeLessThan(EPS + storing(wantProduct));
    const multiple = await run((d) => scaled(d.capabilities, { x, factor: -0.3 }), x, {
      activations: { x: x1 },
    });
    const wantMultiple = x1.values.map((v) => -0.3 * v);
    expect(maxDifference(multiple, wantMultiple).difference).toBeLessThan(EPS + storing(wantMultiple));
    const gated = await run((d) => scaleRows(d.capabilities, { x }), x, { activations: { x: x1, gate } });
    const expectedGated = x1.values.map((v, k) => v * gate.values[Math.floor(k / (x[2] * x[3]))]!);
    expect(maxDifference(gated, expectedGated).difference).toBeLessThan(EPS + storing(expectedGated));
  });

  it.for([
    [[1, 1, 1, 1] as Shape, [3, 1, 1, 1] as Shape],
    [[3, 2, 5, 3] as Shape, [2, 2, 5, 3] as Shape, [4, 2, 5, 3] as Shape],
    [[16, 3, 28, 28] as Shape, [32, 3, 28, 28] as Shape],
  ])('concat of %s', async (inputs, context) => {
    if (!(await device)) return context.skip(missing);
    const parts = inputs.map((shape, i) => random(shape, i));
    const [, n, h, w] = inputs[0]!;
    const y: Shape = [inputs.reduce((sum, [c]) => sum + c, 0), n, h, w];
    const actual = await run((d) => concat(d.capabilities, { inputs }), y, {
      activations: Object.fromEntries(parts.map((part, i) => [`x${i}`, part])),
    });
    const expected = build(y, (i, j, row, column) => {
      let channel = j;
      for (const { shape, values } of parts) {
        if (channel < shape[0]) return at(values, shape, i, channel, row, column);
        channel -= shape[0];
      }
      return Number.NaN;
    });
    expect(maxDifference(actual, expected).difference).toBe(0);
  });

  it('copies a range of channels, and rejects a range outside the channels', async (context) => {
    if (!(await device)) return context.skip(missing);
    const x = random([5, 3, 7, 7], 1);
    const options = { x: x.shape, from: 2, y: [3, 3, 7, 7] as const, channels: 3 };
    const y = await run((d) => copyChannels(d.capabilities, options), options.y, { activations: { x } });
    const expected = build(options.y, (i, j, row, column) => at(x.values, x.shape, i, j + 2, row, column));
    expect(maxDifference(y, expected).difference).toBe(0);
    const { capabilities } = (await device)!;
    expect(() => copyChannels(capabilities, { ...options, channels: 4 })).toThrow(ShapeError);
    expect(() => copyChannels(capabilities, { ...options, y: [3, 3, 7, 8] })).toThrow(ShapeError);
  });

  it.for(shapes.map((shape) => ({ shape })))(
    'samples of $shape picked by index',
    async ({ shape }, context) => {
      if (!(await device)) return context.skip(missing);
      const x = random(shape, 1);
      const [c, samples, h, w] = shape;
      const index = Uint32Array.from([samples - 1, 0, 0, samples >> 1, samples + 7]);
      const y = await run((d) => pickSamples(d.capabilities, { x: shape, n: 5 }), [c, 5, h, w], {
        activations: { x },
        constants: { index },
      });
      const expected = build([c, 5, h, w], (i, j, row, column) =>
        at(x.values, shape, Math.min(index[i]!, samples - 1), j, row, column),
      );
      expect(maxDifference(y, expected).difference).toBe(0);
    },
  );

  it.for(shapes.map((shape) => ({ shape })))(
    'upsample, pool and pick of $shape',
    async ({ shape }, context) => {
      if (!(await device)) return context.skip(missing);
      const x = random(shape, 1);
      const [c, n, h, w] = shape;
      for (const size of [
        [2 * h, 2 * w],
        [2 * h - 1, 2 * w + 1],
        [h + 3, 3 * w],
      ] as const) {
        const y = await run((d) => upsampleNearest(d.capabilities, { x: shape, size }), [c, n, ...size], {
          activations: { x },
        });
        expect(maxDifference(y, referenceUpsample(x.values, shape, size)).difference).toBe(0);
      }
      for (const stride of [1, 2, 3]) {
        const size = [Math.ceil(h / stride), Math.ceil(w / stride)] as const;
        const y = await run((d) => pick(d.capabilities, { x: shape, stride }), [c, n, ...size], {
          activations: { x },
        });
        expect(maxDifference(y, referencePick(x.values, shape, stride)).difference).toBe(0);
      }
      if (h < 2 || w < 2) return;
      const half: Shape = [c, n, Math.floor(h / 2), Math.floor(w / 2)];
      const y = await run((d) => averagePool2x2(d.capabilities, { x: shape }), half, { activations: { x } });
      const pooled = referenceAveragePool2x2(x.values, shape);
      expect(maxDifference(y, pooled).difference).toBeLessThan(2 * EPS + storing(pooled));
    },
  );

  it.for([
    [1, 1, 1],
    [10, 64, 7],
    [1000, 65, 64],
    [3, 256, 129],
  ] as const)('gather from %s rows of %s for %s samples', async ([entries, channels, n], context) => {
    if (!(await device)) return context.skip(missing);
    const { table } = rounded({ table: randomValues(entries * channels, 1) }, stored);
    const index = Uint32Array.from({ length: n }, (_, i) => (i * 7919) % entries);
    const y = await run((d) => gather(d.capabilities, { entries, channels, n }), [channels, n, 1, 1], {
      constants: { table, index },
    });
    const expected = build([channels, n, 1, 1], (i, j) => table[index[i]! * channels + j]!);
    expect(maxDifference(y, expected).difference).toBe(0);
  });

  const layers: LayerNormOptions[] = [
    { x: [1, 1, 1, 1], eps: 1e-5 },
    { x: [2, 3, 1, 1], eps: 1e-5, beta: false },
    { x: [7, 2, 5, 3], eps: 1e-5, gamma: false, beta: false },
    { x: [8, 5, 7, 7], eps: 1e-5 },
    { x: [64, 3, 7, 7], eps: 1e-6 },
    { x: [320, 1, 1, 257], eps: 1e-5, gamma: false },
    { x: [7, 3, 5, 3], eps: 1e-6, gamma: false, beta: false, modulated: true },
    { x: [24, 5, 4, 4], eps: 1e-6, gamma: false, beta: false, modulated: true },
    { x: [64, 2, 7, 7], eps: 1e-6, modulated: true },
  ];
  it.for(layers)('layer norm of $x, modulated: $modulated', async (options, context) => {
    if (!(await device)) return context.skip(missing);
    const [c] = options.x;
    const [gamma, beta] = [randomValues(c, 2), randomValues(c, 3)];
    const rows: Shape = [c, options.x[1], 1, 1];
    const [scale, shift] = [random(rows, 4), random(rows, 5)];
    const modulation = options.modulated ? { scale, shift } : {};
    for (const offset of [0.5, 1000]) {
      const shifted = { values: randomValues(count(options.x), 1).map((v) => v + offset) };
      const x = { shape: options.x, ...rounded(shifted, stored) };
      const y = await run((d) => layerNorm(d.capabilities, options), options.x, {
        activations: { x, ...modulation },
        constants: { gamma, beta },
      });
      const normed = referenceLayerNorm(
        options,
        x.values,
        options.gamma === false ? undefined : gamma,
        options.beta === false ? undefined : beta,
      );
      const [, n, h, w] = options.x;
      const expected = options.modulated
        ? normed.map((v, i) => {
            const row = Math.floor(i / (h * w));
            return v * (1 + scale.values[row]!) + shift.values[row]!;
          })
        : normed;
      const ofLast = ({ values }: typeof scale) => ({
        shape: [c, 1, 1, 1] as Shape,
        values: values.slice((n - 1) * c),
      });
      const last = await run(
        (d) => layerNorm(d.capabilities, { ...options, x: [c, 1, h, w] }),
        [c, 1, h, w],
        {
          activations: {
            x: { shape: [c, 1, h, w], values: x.values.slice((n - 1) * c * h * w) },
            ...(options.modulated ? { scale: ofLast(scale), shift: ofLast(shift) } : {}),
          },
          constants: { gamma, beta },
        },
      );
      expect(last).toEqual(y.slice((n - 1) * c * h * w));
      // two channels can be so close together that the error of their mean is magnified a hundredfold
      const magnified = c <= 2 ? 100 : 10;
      expect(maxDifference(y, expected).difference).toBeLessThan(
        magnified * EPS * (1 + offset) + storing(expected),
      );
    }
  });
});
