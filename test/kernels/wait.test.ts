// Tests that waiting parks the thread once per turn of the event loop, however many promises are waited for.

import { afterEach, expect, it, vi } from 'vitest';
import { parked } from '../../src/kernels/device/wait.ts';

afterEach(() => vi.restoreAllMocks());

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

it('parks once per turn after many earlier waits', async () => {
  for (let i = 0; i < 20; i++) await parked(turn());
  const wait = vi.spyOn(Atomics, 'wait');
  let turns = 0;
  const waiting = async () => {
    for (; turns < 20; turns++) await turn();
  };
  await Promise.all([parked(waiting()), parked(turn()), parked(turn())]);
  expect(turns).toBe(20);
  expect(wait.mock.calls.length).toBeGreaterThan(10);
  expect(wait.mock.calls.length).toBeLessThanOrEqual(22);
});

it('passes on the result of the promise', async () => {
  await expect(parked(Promise.resolve(7))).resolves.toBe(7);
  await expect(parked(Promise.reject(new Error('lost')))).rejects.toThrow('lost');
});
