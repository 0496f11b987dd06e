// Waiting parks the thread once a turn of the event loop, however many wait or have waited.

import { afterEach, expect, it, vi } from 'vitest';
import { parked } from '../../src/kernels/device/wait.ts';

afterEach(() => vi.restoreAllMocks());

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

it('parks once a turn after many waits have come and gone', async () => {
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

it('passes on what it waited for', async () => {
  await expect(parked(Promise.resolve(7))).resolves.toBe(7);
  await expect(parked(Promise.reject(new Error('lost')))).rejects.toThrow('lost');
});
