// Handles interruptions: the first signal lets images in flight finish, the second one drops them.

import { setMaxListeners } from 'node:events';
import type { AbortSignalLike } from '../../../host-types.ts';

/** Milliseconds that images in flight have to finish after an interruption. */
const GRACE = 5000;

/** The part of `process` that sends signals. */
export interface SignalSource {
  on(signal: 'SIGINT' | 'SIGTERM', listener: () => void): unknown;
  removeListener(signal: 'SIGINT' | 'SIGTERM', listener: () => void): unknown;
}

/** What the signals so far ask for. */
export interface Interruption {
  /** Aborted at the first signal: nothing new is begun. */
  readonly stop: AbortSignalLike;
  /** Aborted 5 s after the first signal, or at the second one: images in flight are dropped. */
  readonly drop: AbortSignalLike;
  /** The exit status of the signal; 0 before the first one. */
  readonly status: number;
  /** Stops listening. */
  release(): void;
}

/**
 * Listens for SIGINT (status 130) and SIGTERM (143). The first signal stops new work, and drops what is not finished after
 * 5 s; the second one drops it at once.
 */
export function interruptible(signals: SignalSource, onStop: () => void): Interruption {
  const stop = new AbortController();
  const drop = new AbortController();
  // Every image in flight listens, and Node warns of more than 10 listeners.
  setMaxListeners(0, stop.signal, drop.signal);
  let status = 0;
  let timer: NodeJS.Timeout | undefined;
  const raise = (code: number) => () => {
    if (stop.signal.aborted) drop.abort();
    else {
      status = code;
      stop.abort();
      timer = setTimeout(() => drop.abort(), GRACE);
      onStop();
    }
  };
  const listeners = [
    ['SIGINT', raise(130)],
    ['SIGTERM', raise(143)],
  ] as const;
  for (const [signal, listener] of listeners) signals.on(signal, listener);
  return {
    stop: stop.signal,
    drop: drop.signal,
    get status() {
      return status;
    },
    release() {
      clearTimeout(timer);
      for (const [signal, listener] of listeners) signals.removeListener(signal, listener);
    },
  };
}
