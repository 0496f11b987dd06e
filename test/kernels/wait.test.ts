// Tests how the thread waits: on a software adapter it sleeps once per turn of the event loop, however many promises are
// waited for, and on a GPU it polls first and then sleeps for a small share of the time waited. The clock is a fake one
// whose turns take 10 us.

import { describe, expect, it } from 'vitest';
import { type Clock, newWaiting, sleepMs, waitFor } from '../../src/kernels/device/wait.ts';

/** A clock that advances only by sleeping and by turns, and promises that resolve at a time. */
function fakeClock(turnMs = 0.01) {
  let time = 0;
  const sleeps: number[] = [];
  const due: { readonly at: number; readonly resolve: () => void }[] = [];
  const clock: Clock = {
    now: () => time,
    sleep(milliseconds) {
      sleeps.push(milliseconds);
      time += milliseconds;
    },
    async turn() {
      time += turnMs;
      for (const one of due.filter(({ at }) => at <= time)) {
        one.resolve();
        due.splice(due.indexOf(one), 1);
      }
      await new Promise<void>((resolve) => setImmediate(resolve));
    },
  };
  /** Resolves with the time at which the caller notices that `milliseconds` have passed. */
  const after = (milliseconds: number) =>
    new Promise<number>((resolve) => {
      due.push({ at: time + milliseconds, resolve: () => resolve(time) });
    });
  return { clock, sleeps, after, now: () => time };
}

describe('on a software adapter', () => {
  it('the thread sleeps for a millisecond before each poll, however many promises are pending', async () => {
    const { clock, sleeps, after, now } = fakeClock();
    const wait = newWaiting(clock);
    await Promise.all([wait(after(20), true), wait(after(5), true), wait(after(12), true)]);
    expect(new Set(sleeps)).toEqual(new Set([1]));
    expect(sleeps.length).toBe(20);
    expect(now()).toBeCloseTo(20.2, 5);
  });

  it('the thread does not sleep after the last promise, and sleeps again for the next one', async () => {
    const { clock, sleeps, after } = fakeClock();
    const wait = newWaiting(clock);
    await wait(after(3), true);
    const before = sleeps.length;
    await clock.turn();
    expect(sleeps.length).toBe(before);
    await wait(after(3), true);
    expect(sleeps.length).toBe(2 * before);
  });
});

describe('on a GPU', () => {
  it('the thread never sleeps in the first 2 ms, so that an answer is noticed in the next turn', async () => {
    const { clock, sleeps, after } = fakeClock();
    const wait = newWaiting(clock);
    expect(await wait(after(0.072), false)).toBeCloseTo(0.08, 5);
    expect(await wait(after(1.9), false)).toBeLessThan(0.08 + 1.9 + 0.03);
    expect(sleeps).toEqual([]);
  });

  it.each([3, 7.3, 15, 60, 400])(
    'an answer after %d ms is noticed at most 5 % and a turn late',
    async (ms) => {
      const { clock, sleeps, after, now } = fakeClock();
      const seen = await newWaiting(clock)(after(ms), false);
      expect(seen).toBeGreaterThanOrEqual(ms);
      expect(seen - ms).toBeLessThanOrEqual(Math.min(1, ms / 20) + 0.011);
      // The thread sleeps for most of the time after the first 2 ms.
      const slept = sleeps.reduce((sum, one) => sum + one, 0);
      expect(slept).toBeGreaterThan(0.8 * (now() - 2.2));
    },
  );

  it('each answer starts the polling again, so that a stream of short batches is never slept through', async () => {
    const { clock, sleeps, after } = fakeClock();
    const wait = newWaiting(clock);
    const long = wait(after(30), false);
    for (let i = 0; i < 15; i++) await wait(after(1.8), false);
    expect(sleeps).toEqual([]);
    await long;
  });

  it('the thread sleeps at once while a software adapter works too', async () => {
    const { clock, sleeps, after } = fakeClock();
    const wait = newWaiting(clock);
    await Promise.all([wait(after(1.5), false), wait(after(4), true)]);
    expect(sleeps).toEqual([1, 1, 1, 1]);
  });
});

it('the longest sleep is a millisecond', () => {
  expect(sleepMs(false, 1e6)).toBe(1);
  expect(sleepMs(true, 0)).toBe(1);
});

it('passes on the result of the promise', async () => {
  for (const software of [true, false]) {
    const device = { capabilities: { software } } as Parameters<typeof waitFor>[0];
    await expect(waitFor(device, Promise.resolve(7))).resolves.toBe(7);
    await expect(waitFor(device, Promise.reject(new Error('lost')))).rejects.toThrow('lost');
  }
});
