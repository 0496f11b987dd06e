// Runs the smallest benchmark case of every op as the benchmark does, and checks that the device accepts it and that the
// results are numbers.

import { describe, expect, it } from 'vitest';
import { bytesOf, launchesOf } from '../../src/bench/case.ts';
import { benchCase, benchCases, OP_NAMES } from '../../src/bench/cases.ts';
import { timeCase } from '../../src/bench/time-case.ts';
import { idle, prepare, readBack, submit } from '../../src/kernels/device/runtime.ts';
import { fromChannelMajor } from '../../src/kernels/device/tensor.ts';
import { testDevice } from '../kernels/harness.ts';

const cases = benchCases();

describe('the smallest case of every op', () => {
  it.each(OP_NAMES)('%s runs and gives numbers', async (op) => {
    const device = await testDevice();
    const [smallest] = cases.filter((one) => one.op === op).sort((a, b) => bytesOf(a) - bytesOf(b));
    const { launches, buffers, destroy } = launchesOf(device, smallest!);
    const sequence = await prepare(device, launches);
    submit(device, (pass) => sequence.encode(pass));
    await idle(device);
    const buffer = buffers.get('y')!;
    const bytes = await readBack(device, { buffer, offset: 0, size: buffer.size });
    const y = fromChannelMajor(new Float32Array(bytes), smallest!.activations.y!);
    sequence.destroy();
    destroy();
    expect(y.every(Number.isFinite)).toBe(true);
    expect(y.some((value) => value !== 0)).toBe(true);
  });
});

describe('timing a case', () => {
  it('gives times, their quartiles and rates', async () => {
    const one = benchCase('linear', [64, 4, 4, 4], { channels: 32 });
    const result = await timeCase(await testDevice(), one, 5);
    expect(result).toMatchObject({ name: `linear ${one.name}`, runs: expect.any(Number) });
    expect(result.samples).toHaveLength(5);
    const [low, high] = result.quartiles!;
    expect(low).toBeGreaterThan(0);
    expect(low).toBeLessThanOrEqual(result.ms!);
    expect(result.ms).toBeLessThanOrEqual(high);
    expect(result.gflops! * result.ms! * 1e6).toBeCloseTo(one.flops, 0);
    expect(result.gbytes! * result.ms! * 1e6).toBeCloseTo(bytesOf(one), 0);
  });

  it('gives the error of a case that the device refuses', async () => {
    const device = await testDevice();
    const one = benchCase('add', [16, 4, 4, 4]);
    const wrong = { ...one, activations: { ...one.activations, y: undefined! } };
    expect((await timeCase(device, wrong, 1)).error).toBeDefined();
    const { y: _, ...missing } = one.activations;
    const { error } = await timeCase(device, { ...one, activations: missing }, 1);
    expect(error).toContain('expected an operand y');
  });
});
