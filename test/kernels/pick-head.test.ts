import { ShapeError } from '../../src/errors.ts';
import type { Shape } from '../../src/kernels/device/tensor.ts';
import { pickHead, pickHeadBackward } from '../../src/kernels/elementwise/pick-head.ts';
import { maxDifference, randomValues, rounded, runRoutine, storingError, testDevice } from './harness.ts';
import { describe, expect, it } from './test-functions.ts';
import { inEachType } from './variants.ts';

const EPS = 2 ** -23;

interface Case {
  readonly heads: number;
  readonly channels: number;
  readonly views: number;
  readonly side: number;
  /** View and head of every sample. */
  readonly samples: readonly (readonly [view: number, label: number])[];
  /** Without an index, sample i belongs to view i. */
  readonly each?: true;
}

const pairs = (text: string) =>
  text.split(' ').map((pair) => pair.split(':').map(Number) as unknown as readonly [number, number]);

// Different heads, a repeated head, an unused view, the mean (a label after those of the heads), odd numbers of pixels.
const cases: readonly Case[] = [
  { heads: 10, channels: 1, views: 3, side: 28, samples: pairs('0:9 2:0 0:9 2:3 0:0') },
  { heads: 3, channels: 3, views: 2, side: 7, samples: pairs('1:2 1:3 0:0 1:2') },
  { heads: 2, channels: 2, views: 1, side: 1, samples: pairs('0:1 0:7 0:0') },
  { heads: 3, channels: 2, views: 4, side: 5, samples: pairs('0:2 1:0 2:3 3:2'), each: true },
  { heads: 11, channels: 3, views: 4, side: 40, samples: pairs('3:10 1:11 3:4') },
];

/** Calls `take(from in x, to in y, share)` for everything that the op copies, sample by sample in [n, c, h, w] order. */
function walk(
  { heads, channels, side, samples }: Case,
  take: (from: number, to: number, share: number) => void,
): void {
  const pixels = side * side;
  for (const [n, [view, label]] of samples.entries())
    for (let c = 0; c < channels; c++)
      for (let p = 0; p < pixels; p++) {
        const from = (head: number) => (view * heads * channels + head * channels + c) * pixels + p;
        const to = (n * channels + c) * pixels + p;
        if (label < heads) take(from(label), to, 1);
        else for (let head = 0; head < heads; head++) take(from(head), to, 1 / heads);
      }
}

const named = cases.map((one) => ({
  ...one,
  name: `${one.heads} heads of ${one.channels} channels, ${one.side} x ${one.side} pixels`,
}));

describe.each(['plain', 'tile'] as const)('pickHead, %s', (family) => {
  it.for(inEachType(named))('$name', async (one) => {
    const { heads, channels, views, side, samples, stored } = one;
    const device = await testDevice({ family });
    const xShape: Shape = [heads * channels, views, side, side];
    const yShape: Shape = [channels, samples.length, side, side];
    const { x, dy } = rounded(
      {
        x: randomValues(heads * channels * views * side * side, 1),
        dy: randomValues(channels * samples.length * side * side, 2),
      },
      stored,
    );
    const constants = {
      ...(one.each ? {} : { view: Uint32Array.from(samples, ([view]) => view) }),
      label: Uint32Array.from(samples, ([, label]) => label),
    };
    const options = { x: xShape, channels, n: samples.length, view: !one.each };

    const { y } = await runRoutine(device, pickHead(device.capabilities, options), {
      activations: { x: { shape: xShape, values: x } },
      constants,
      outputs: { y: yShape },
      stored,
    });
    const wantY = new Float64Array(dy.length);
    const wantDx = new Float64Array(x.length);
    walk(one, (from, to, share) => {
      wantY[to]! += share * x[from]!;
      wantDx[from]! += share * dy[to]!;
    });
    expect(maxDifference(y!, wantY).difference).toBeLessThan(heads * EPS + storingError(stored, wantY));

    const { y: dx } = await runRoutine(device, pickHeadBackward(device.capabilities, options), {
      activations: { dy: { shape: yShape, values: dy } },
      constants,
      outputs: { y: xShape },
      stored,
    });
    expect(maxDifference(dx!, wantDx).difference).toBeLessThan(
      samples.length * 2 * EPS + storingError(stored, wantDx),
    );
  });
});

it('rejects channels that are not whole heads; the error has both numbers', async () => {
  const { capabilities } = await testDevice();
  expect(() => pickHead(capabilities, { x: [31, 1, 4, 4], channels: 3, n: 1, view: true })).toThrow(
    ShapeError,
  );
  expect(() => pickHead(capabilities, { x: [31, 1, 4, 4], channels: 3, n: 1, view: true })).toThrow(
    /multiple of 3 channels, got 31/,
  );
});
