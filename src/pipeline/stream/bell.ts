// How two asynchronous functions tell each other that something has changed.

export interface Bell {
  /** Wakes whoever waits; if nobody does, the next one to wait is woken at once. */
  ring(): void;
  /** Waits for a ring. One waiter at a time. */
  rung(): Promise<void>;
}

/** Makes a bell. */
export function bell(): Bell {
  let wake: (() => void) | undefined;
  let kept = false;
  return {
    ring() {
      kept = wake === undefined;
      wake?.();
      wake = undefined;
    },
    rung: () =>
      new Promise((resolve) => {
        if (kept) resolve();
        else wake = resolve;
        kept = false;
      }),
  };
}
