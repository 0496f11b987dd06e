// Waits for the GPU without occupying a core.
//
// Dawn's Node binding polls from `setImmediate` as long as one of its promises is pending, which keeps the JavaScript
// thread at 100 %. On a software adapter the kernels need that core: one matrix product runs at 33.8 GFLOP/s while the
// thread polls and at 65.4 while it sleeps (2 cores, lavapipe). So the thread sleeps for a millisecond per poll.

const inNode = typeof process !== 'undefined' && process.versions?.node !== undefined;
const cell = inNode ? new Int32Array(new SharedArrayBuffer(4)) : undefined;
let pending = 0;
let parking = false;

/** Sleeps until no promise is pending. All callers share one loop, because a second one would sleep twice per poll. */
async function park(): Promise<void> {
  if (parking) return;
  parking = true;
  while (pending > 0) {
    Atomics.wait(cell!, 0, 0, 1);
    await new Promise((resolve) => setImmediate(resolve));
  }
  parking = false;
}

/** Awaits a promise while the thread sleeps between polls (in Node; elsewhere it awaits the promise as usual). */
export async function parked<T>(promise: Promise<T>): Promise<T> {
  if (!inNode) return promise;
  pending++;
  void park();
  try {
    return await promise;
  } finally {
    pending--;
  }
}
