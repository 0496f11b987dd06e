// Waits for the GPU: with little latency on hardware, and without occupying a core on a software adapter.
//
// Dawn's Node binding polls from `setImmediate` as long as one of its promises is pending, which keeps the JavaScript
// thread at 100 %.
// - On a software adapter the kernels need that core: one matrix product runs at 33.8 GFLOP/s while the thread polls and
//   at 65.4 while it sleeps (2 cores, lavapipe). So the thread sleeps for a millisecond between polls, from the start.
// - On a GPU the kernels need no core, and a batch may take less than a millisecond: writing, running and reading back a
//   small kernel takes 1,177 us if the thread sleeps, and 72 us if it polls (H200). So the thread polls for 2 ms. After
//   that it sleeps between polls for a twentieth of the time waited, which delays an answer by 5 % at most.

import type { Device } from './device.ts';

/** Milliseconds for which waiting for a GPU only polls. */
const POLL_MS = 2;

/** The longest sleep between two polls, in milliseconds. */
const LONGEST_SLEEP_MS = 1;

/** The share of the time waited for a GPU so far that the next sleep takes. */
const SLEEP_SHARE = 1 / 20;

/** What waiting needs from its surroundings; tests pass a fake one. */
export interface Clock {
  /** Returns the time in milliseconds. */
  now(): number;
  /** Blocks the thread for some milliseconds. */
  sleep(milliseconds: number): void;
  /** Resolves after a turn of the event loop, in which Dawn polls. */
  turn(): Promise<void>;
}

/** Returns how long to sleep before the next poll, in milliseconds, after having waited for `waited` milliseconds. */
export function sleepMs(software: boolean, waited: number): number {
  if (software) return LONGEST_SLEEP_MS;
  return waited < POLL_MS ? 0 : Math.min(LONGEST_SLEEP_MS, SLEEP_SHARE * waited);
}

/**
 * Returns a function that awaits a promise of a device while one loop, which all callers share, sleeps between polls: a
 * second loop would sleep twice per poll.
 */
export function newWaiting({ now, sleep, turn }: Clock) {
  const pending = { software: 0, hardware: 0 };
  let waitingSince = 0;
  let looping = false;
  async function loop(): Promise<void> {
    if (looping) return;
    looping = true;
    while (pending.software + pending.hardware > 0) {
      const milliseconds = sleepMs(pending.software > 0, now() - waitingSince);
      if (milliseconds > 0) sleep(milliseconds);
      await turn();
    }
    looping = false;
  }
  return async <T>(promise: Promise<T>, software: boolean): Promise<T> => {
    const kind = software ? 'software' : 'hardware';
    pending[kind]++;
    waitingSince = now();
    void loop();
    try {
      return await promise;
    } finally {
      pending[kind]--;
      waitingSince = now();
    }
  };
}

/** Returns the clock of Node; undefined elsewhere, where the thread cannot sleep and does not poll. */
function nodeClock(): Clock | undefined {
  if (typeof process === 'undefined' || process.versions?.node === undefined) return undefined;
  const cell = new Int32Array(new SharedArrayBuffer(4));
  return {
    now: () => performance.now(),
    sleep: (milliseconds) => void Atomics.wait(cell, 0, 0, milliseconds),
    turn: () => new Promise((resolve) => setImmediate(resolve)),
  };
}

const clock = nodeClock();
const waiting = clock && newWaiting(clock);

/** Awaits a promise of a device. In Node the thread polls or sleeps meanwhile, as the device requires. */
export const waitFor = <T>(
  { capabilities }: Pick<Device, 'capabilities'>,
  promise: Promise<T>,
): Promise<T> => (waiting ? waiting(promise, capabilities.software) : promise);
