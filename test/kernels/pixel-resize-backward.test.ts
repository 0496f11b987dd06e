// Tests the gradients of resampling, slices and padding. Each forward pass copies pixels. So if its reference runs on the
// indices of the pixels, its result tells to which pixel every gradient belongs.

import { ShapeError } from '../../src/errors.ts';
import type { Family } from '../../src/kernels/device/device.ts';
import type { Routine } from '../../src/kernels/device/routine.ts';
import type { Shape } from '../../src/kernels/device/tensor.ts';
import {
  averagePoolGradient,
  pad,
  padChannels,
  spaceToDepth,
  upsampleGradient,
} from '../../src/kernels/elementwise/pixel-resize-backward.ts';
import {
  at,
  build,
  referenceAveragePool2x2,
  referenceDepthToSpace,
  referenceUpsample,
} from '../reference/elementwise.ts';
import { shapes } from './cases/shapes.ts';
import { maxDifference, randomValues, runRoutine, testDevice } from './harness.ts';
import { afterAll, describe, expect, it } from './test-functions.ts';

const EPS = 2 ** -23;
const count = ([c, n, h, w]: Shape) => c * n * h * w;
const numbers = (shape: Shape) => Float64Array.from({ length: count(shape) }, (_, i) => i);

/** Returns the gradient of x [shape], if result j is a copy of x's element `sources[j]`, or of no element. */
function returned(shape: Shape, sources: ArrayLike<number>, dy: ArrayLike<number>): Float64Array {
  const gradient = new Float64Array(count(shape));
  for (let j = 0; j < sources.length; j++) if (sources[j]! >= 0) gradient[sources[j]!]! += dy[j]!;
  return gradient;
}

/** Places element (i, j) of x at (i + top, j + left) of an image of another size, with -1 elsewhere. */
function placed(
  x: Shape,
  [top, left]: readonly [number, number],
  step: number,
  [h, w]: readonly [number, number],
) {
  const own = numbers(x);
  return build([x[0], x[1], h, w], (sample, channel, i, j) => {
    const [row, column] = [(i - top) / step, (j - left) / step];
    const whole = Number.isInteger(row) && Number.isInteger(column);
    const inside = whole && row >= 0 && column >= 0 && row < x[2] && column < x[3];
    return inside ? at(own, x, sample, channel, row, column) : -1;
  });
}

// The subgroup family uses the plain family's kernels here.
const FAMILIES: readonly Family[] = ['plain', 'tile'];

describe.each(FAMILIES)('backward of resampling, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);
  afterAll(async () => (await device)?.close());
  const run = async (
    make: (here: Awaited<ReturnType<typeof testDevice>>) => Routine,
    operand: string,
    shape: Shape,
    values: Float32Array,
    y: Shape,
  ) => {
    const here = (await device)!;
    const activations = { [operand]: { shape, values } };
    return (await runRoutine(here, make(here), { activations, outputs: { y } })).y!;
  };

  it.for(shapes.map((x) => ({ x })))('upsampling of $x', async ({ x }, { skip }) => {
    if (!(await device)) return skip(`this adapter has no ${family} family`);
    const [c, n, h, w] = x;
    for (const size of [
      [2 * h, 2 * w],
      [3 * h + 1, 2 * w + 3],
      [h + 1, w + 5],
    ] as const) {
      const y: Shape = [c, n, ...size];
      const dy = randomValues(count(y), 1);
      const actual = await run(
        (d) => upsampleGradient(d.capabilities, { dy: y, size: [h, w] }),
        'dy',
        y,
        dy,
        x,
      );
      const expected = returned(x, referenceUpsample(numbers(x), x, size), dy);
      expect(maxDifference(actual, expected).difference, `to ${size}`).toBeLessThan(32 * EPS);
    }
  });

  it.for(shapes.filter(([, , h, w]) => h > 1 && w > 1).map((x) => ({ x })))(
    'average pooling of $x',
    async ({ x }, { skip }) => {
      if (!(await device)) return skip(`this adapter has no ${family} family`);
      const [c, n, h, w] = x;
      const y: Shape = [c, n, Math.floor(h / 2), Math.floor(w / 2)];
      const dy = randomValues(count(y), 2);
      const actual = await run(
        (d) => averagePoolGradient(d.capabilities, { dy: y, size: [h, w] }),
        'dy',
        y,
        dy,
        x,
      );
      const expected = new Float64Array(count(x));
      const own = numbers(x);
      for (const corner of [0, 1, 2, 3]) {
        // Each pooled pixel is a quarter of the sum of its four pixels.
        const source = build(y, (i, j, row, column) =>
          at(own, x, i, j, 2 * row + (corner >> 1), 2 * column + (corner & 1)),
        );
        returned(x, source, dy).forEach((v, i) => {
          expected[i]! += v / 4;
        });
      }
      expect(maxDifference(actual, expected).difference).toBeLessThan(EPS);
      const probe = randomValues(count(x), 3);
      const pooled = referenceAveragePool2x2(probe, x);
      const sum = (a: ArrayLike<number>, b: ArrayLike<number>) =>
        Array.from(a).reduce((total, v, i) => total + v * b[i]!, 0);
      expect(sum(probe, actual)).toBeCloseTo(sum(pooled, dy), 3);
    },
  );

  it('depth to space', async ({ skip }) => {
    if (!(await device)) return skip(`this adapter has no ${family} family`);
    for (const [x, block] of [
      [[4, 1, 1, 1], 2],
      [[12, 3, 7, 7], 2],
      [[18, 2, 3, 5], 3],
      [[16, 1, 28, 28], 4],
    ] as const) {
      const [c, n, h, w] = x;
      const y: Shape = [c / block ** 2, n, block * h, block * w];
      const dy = randomValues(count(y), 4);
      const actual = await run((d) => spaceToDepth(d.capabilities, { x: y, block }), 'x', y, dy, x);
      expect(actual).toEqual(Float32Array.from(returned(x, referenceDepthToSpace(numbers(x), x, block), dy)));
    }
  });

  it('padding, cropping and spreading of pixels', async ({ skip }) => {
    if (!(await device)) return skip(`this adapter has no ${family} family`);
    for (const [x, offset, step, size] of [
      [[1, 1, 1, 1], [0, 0], 1, [1, 1]],
      [[3, 2, 5, 3], [1, 2], 1, [8, 6]],
      [[3, 2, 5, 3], [-1, -2], 1, [3, 1]],
      [[2, 3, 7, 7], [-1, 3], 2, [9, 18]],
      [[2, 3, 28, 28], [-1, -1], 1, [27, 28]],
      [[2, 3, 5, 4], [1, 0], 3, [16, 10]],
    ] as const) {
      const y: Shape = [x[0], x[1], ...size];
      const values = randomValues(count(x), 5);
      const actual = await run((d) => pad(d.capabilities, { x, offset, step, size }), 'x', x, values, y);
      const expected = placed(x, offset, step, size).map((source) => values[source] ?? 0);
      expect(actual).toEqual(Float32Array.from(expected));
    }
  });

  it('padding of channels', async ({ skip }) => {
    if (!(await device)) return skip(`this adapter has no ${family} family`);
    for (const [x, first, channels] of [
      [[1, 1, 1, 1], 0, 1],
      [[3, 3, 5, 3], 2, 6],
      [[2, 3, 7, 7], 0, 9],
      [[5, 1, 28, 28], 4, 9],
    ] as const) {
      const y: Shape = [channels, x[1], x[2], x[3]];
      const values = randomValues(count(x), 6);
      const actual = await run((d) => padChannels(d.capabilities, { x, first, channels }), 'x', x, values, y);
      const expected = build(y, (sample, channel, row, column) =>
        channel >= first && channel < first + x[0] ? at(values, x, sample, channel - first, row, column) : 0,
      );
      expect(actual).toEqual(Float32Array.from(expected));
    }
  });
});

describe('shapes of gradients', () => {
  const capabilities = { family: 'plain', subgroupSize: 0 } as Parameters<typeof pad>[0];
  it('are rejected if pixels do not form whole blocks, or channels do not fit', () => {
    expect(() => spaceToDepth(capabilities, { x: [1, 1, 3, 4], block: 2 })).toThrow(ShapeError);
    expect(() => padChannels(capabilities, { x: [3, 1, 2, 2], first: 2, channels: 4 })).toThrow(
      'expected channels within 0 to 4, got 2 to 5',
    );
  });
});
