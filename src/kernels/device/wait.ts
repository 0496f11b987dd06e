// Waiting for the GPU without spending a core on it.
//
// Dawn's Node binding polls from `setImmediate` for as long as one of its promises is pending, which keeps the
// JavaScript thread at 100 %. On a software adapter that is one of the cores the kernels need: the same matmul
// runs at half its speed. Parking the thread for a millisecond a turn gives the core back.

const inNode = typeof process !== 'undefined' && process.versions?.node !== undefined;
const cell = inNode ? new Int32Array(new SharedArrayBuffer(4)) : undefined;
let pending = 0;
let parking = false;

/** One loop for everybody who waits: a second one would park the thread twice a turn. */
async function park(): Promise<void> {
  if (parking) return;
  parking = true;
  while (pending > 0) {
    Atomics.wait(cell!, 0, 0, 1);
    await new Promise((resolve) => setImmediate(resolve));
  }
  parking = false;
}

/** The promise itself, awaited with the thread parked between polls (in Node; elsewhere the promise as it is). */
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
