// Which image is in which slot of a model.

import type { Lease } from './jobs.ts';

/** The slots of a model, and the images that hold a lease on one. */
export class Slots {
  /** All images with a lease, in the order in which they got it. After a lost device they may be without a slot. */
  readonly leases = new Set<Lease>();
  #free: number[] = [];

  constructor(count: number) {
    this.renumber(count);
  }

  get hasFree(): boolean {
    return this.#free.length > 0;
  }

  /** Takes all slots from the images, and frees `count` slots. Images that were released lose their lease. */
  renumber(count: number): void {
    this.#free = Array.from({ length: count }, (_, i) => count - 1 - i);
    for (const lease of this.leases) {
      lease.slot = undefined;
      lease.inFlight = 0;
      if (lease.released) this.leases.delete(lease);
    }
  }

  /** Puts an image into a free slot and returns the slot. */
  assign(lease: Lease): number {
    const slot = this.#free.pop()!;
    lease.slot = slot;
    return slot;
  }

  /** Frees the slot of an image that was released and has nothing in flight. Returns whether it did. */
  vacate(lease: Lease): boolean {
    if (!lease.released || lease.inFlight > 0 || !this.leases.delete(lease)) return false;
    if (lease.slot !== undefined) this.#free.push(lease.slot);
    return true;
  }

  /** Returns the first image with a lease that waits for a slot. */
  nextWithout(): Lease | undefined {
    for (const lease of this.leases) if (lease.slot === undefined && !lease.released) return lease;
    return undefined;
  }
}
