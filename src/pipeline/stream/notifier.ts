// Lets one asynchronous function wait until another one has changed something.

/** Connects a function that waits with others that notify it. */
interface Notifier {
  /** Wakes the function that waits. If none does, the next wait ends at once. */
  notify(): void;
  /** Waits for a notification. Only one function may wait at a time. */
  wait(): Promise<void>;
}

/** Makes a notifier. */
export function notifier(): Notifier {
  let wake: (() => void) | undefined;
  let kept = false;
  return {
    notify() {
      kept = wake === undefined;
      wake?.();
      wake = undefined;
    },
    wait: () =>
      new Promise((resolve) => {
        if (kept) resolve();
        else wake = resolve;
        kept = false;
      }),
  };
}

/** Returns a promise and the function that resolves it, as `Promise.withResolvers` does, which Node 20 lacks. */
export function deferred() {
  let resolve = (): void => {};
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
