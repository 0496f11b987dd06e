import type { Family } from '../../src/kernels/device/device.ts';
import { QUOTIENT, walk } from '../../src/kernels/device/indexing.ts';
import { MAX_GROUPS, read, write } from '../../src/kernels/device/kernel.ts';
import { single } from '../../src/kernels/device/routine.ts';
import type { Shape } from '../../src/kernels/device/tensor.ts';
import { addRows, copyChannels } from '../../src/kernels/elementwise/elementwise.ts';
import { maxDifference, randomValues, runRoutine, testDevice } from './harness.ts';
import { describe, expect, it } from './test-functions.ts';

const FAMILIES: readonly Family[] = ['plain', 'tile'];

describe.each(FAMILIES)('indexing, %s', (family) => {
  const device = testDevice({ family }).catch(() => undefined);

  it('divides exactly around every multiple', async (context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    const pairs: [number, number][] = [];
    for (const d of [1, 2, 3, 4, 7, 14, 28, 49, 196, 784, 1000, 4095, 25088, 65537, 1000003, 2 ** 30]) {
      const largest = Math.min(2 ** 22 - 1, Math.floor((2 ** 31 - 1) / d));
      const multiples = [
        0,
        1,
        2,
        3,
        largest,
        ...randomValues(60, d).map((v) => Math.floor(Math.abs(v) * largest)),
      ];
      for (const k of multiples)
        for (const a of [k * d - 1, k * d, k * d + 1, k * d + d - 1])
          if (a >= 0 && a < 2 ** 31) pairs.push([a, d]);
    }
    const { main, uniforms, grid } = walk(here.capabilities, pairs.length);
    const routine = single({
      name: 'quotients',
      bindings: [read('a', 'u32'), read('d', 'u32'), write('y')],
      uniforms,
      body: QUOTIENT + main('y[i] = f32(quotient(a[i], d[i], 1 / f32(d[i])));'),
      grid,
    });
    const constants = {
      a: Uint32Array.from(pairs, ([a]) => a),
      d: Uint32Array.from(pairs, ([, d]) => d),
    };
    const outputs = { y: [1, 1, 1, pairs.length] as const };
    const { y } = await runRoutine(here, routine, { constants, outputs });
    expect(Array.from(y!)).toEqual(pairs.map(([a, d]) => Math.floor(a / d)));
  });

  it('uses a second dimension if there are too many workgroups for one', async (context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    const x: Shape = [1, 8 * MAX_GROUPS + 9, 1, 1];
    const values = randomValues(x[1], 1);
    const rows = randomValues(x[1], 2);
    const routine = addRows(here.capabilities, { x });
    expect(routine.steps[0]!.kernel.grid[1]).toBeGreaterThan(1);
    const { y } = await runRoutine(here, routine, {
      activations: { x: { shape: x, values }, embedding: { shape: x, values: rows } },
      outputs: { y: x },
    });
    expect(
      maxDifference(
        y!,
        values.map((v, i) => v + rows[i]!),
      ).difference,
    ).toBe(0);
  });

  it('copies values that need several turns of all workgroups', async (context) => {
    const here = await device;
    if (!here) return context.skip(`the ${family} family is not possible on this adapter`);
    const x: Shape = [3, 1, 1, 500_001];
    const values = randomValues(3 * x[3], 1);
    const routine = copyChannels(here.capabilities, { x, y: x, channels: 3 });
    const { y } = await runRoutine(here, routine, {
      activations: { x: { shape: x, values } },
      outputs: { y: x },
    });
    expect(maxDifference(y!, values).difference).toBe(0);
  });
});
