// Queues of images that wait for a slot, and of rows that wait to be sent. They are served fairly, user by user.

import type { BatchPart, Job, Kind, Lease, LeaseRequest, User } from './jobs.ts';

/** All that the users of a model wait for. */
export class Queues {
  /** In the order of service: a user that was served goes to the end. */
  readonly #users = new Set<User>();
  /** Number of rows that wait, by kind. */
  readonly #rows = new Map<Kind, number>();

  /** Adds an image that waits for a slot. */
  wait(user: User, request: LeaseRequest): void {
    user.requests.add(request);
    this.#users.add(user);
  }

  /** Removes an image that waits for a slot. */
  cancel(user: User, request: LeaseRequest): void {
    user.requests.delete(request);
    this.#leave(user);
  }

  /** Removes and returns the image that gets the next slot: the first one of the user with the fewest slots. */
  nextWaiting(): LeaseRequest | undefined {
    let next: User | undefined;
    for (const user of this.#users)
      if (user.requests.size > 0 && (!next || user.slots < next.slots)) next = user;
    if (!next) return undefined;
    const [request] = next.requests;
    next.requests.delete(request!);
    next.slots++;
    this.#served(next);
    return request;
  }

  /** Adds rows that wait to be sent. */
  push(part: BatchPart): void {
    this.#queueOf(part).push(part);
    this.#count(part, 1);
    this.#users.add(part.job.user);
  }

  /** Returns a kind of which at least `least` rows wait: the first one, looking at users in the order of service. */
  kindWith(least: (kind: Kind) => number): Kind | undefined {
    for (const { parts } of this.#users)
      for (const [kind, queue] of parts)
        if (queue.length > 0 && (this.#rows.get(kind) ?? 0) >= least(kind)) return kind;
    return undefined;
  }

  /** Removes and returns up to `room` rows of a kind whose images are in slots, one part of each user in turn. */
  take(kind: Kind, room: number): BatchPart[] {
    const taken: BatchPart[] = [];
    let left = room;
    let served = true;
    while (left > 0 && served) {
      served = false;
      for (const user of [...this.#users]) {
        const part = this.#takeOne(user, kind, left);
        if (!part) continue;
        served = true;
        left -= part.to - part.from;
        taken.push(part);
        if (left === 0) break;
      }
    }
    return taken;
  }

  #takeOne(user: User, kind: Kind, room: number): BatchPart | undefined {
    const queue = user.parts.get(kind) ?? [];
    const at = queue.findIndex(({ job: { work } }) => !work.lease || work.lease.slot !== undefined);
    const part = queue[at];
    if (!part) return undefined;
    const to = Math.min(part.to, part.from + room);
    if (to === part.to) queue.splice(at, 1);
    else queue[at] = { ...part, from: to };
    const taken = { ...part, to };
    this.#count(taken, -1);
    const { lease } = part.job.work;
    if (lease) lease.inFlight += to - part.from;
    this.#served(user);
    return taken;
  }

  /** Puts parts that were sent back in front of everything else of their users, in the same order. */
  putBack(parts: readonly BatchPart[]): void {
    for (const part of [...parts].reverse()) {
      const { user, work, settled } = part.job;
      if (settled || work.lease?.released) continue;
      this.#queueOf(part).unshift(part);
      this.#count(part, 1);
      this.#users.add(user);
    }
  }

  /** Removes and returns what still waits of an image. */
  drop(user: User, lease: Lease): BatchPart[] {
    return this.#remove(user, ({ job }) => job.work.lease === lease);
  }

  /** Removes what still waits of a job. */
  forget(job: Job): void {
    this.#remove(job.user, (part) => part.job === job);
  }

  /** Rejects every image that waits for a slot. */
  refuse(reason: unknown): void {
    for (const user of [...this.#users]) {
      for (const request of user.requests) request.reject(reason);
      user.requests.clear();
      this.#leave(user);
    }
  }

  /** Rejects every image that waits for a slot, and removes and returns all parts that wait to be sent. */
  clear(reason: unknown): BatchPart[] {
    this.refuse(reason);
    return [...this.#users].flatMap((user) => this.#remove(user, () => true));
  }

  #remove(user: User, which: (part: BatchPart) => boolean): BatchPart[] {
    const removed: BatchPart[] = [];
    for (const [kind, queue] of user.parts) {
      const kept: BatchPart[] = [];
      for (const part of queue) (which(part) ? removed : kept).push(part);
      user.parts.set(kind, kept);
    }
    for (const part of removed) this.#count(part, -1);
    this.#leave(user);
    return removed;
  }

  #queueOf({ job: { user, work } }: BatchPart): BatchPart[] {
    const queue = user.parts.get(work.kind) ?? [];
    user.parts.set(work.kind, queue);
    return queue;
  }

  #count({ job, from, to }: BatchPart, sign: 1 | -1): void {
    const { kind } = job.work;
    this.#rows.set(kind, (this.#rows.get(kind) ?? 0) + sign * (to - from));
  }

  /** Moves a user to the end of the order of service, or out of it if it waits for nothing. */
  #served(user: User): void {
    this.#users.delete(user);
    this.#users.add(user);
    this.#leave(user);
  }

  #leave(user: User): void {
    if (user.requests.size === 0 && [...user.parts.values()].every((queue) => queue.length === 0))
      this.#users.delete(user);
  }
}
