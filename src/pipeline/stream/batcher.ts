// Runs a model. Streams, single calls, purifications and attacks request evaluations of their images; the batcher fills
// common batches with them and replaces a lost device. It decides when something runs, never what runs, so no result
// depends on other requests.
//
// Its parts: `queues.ts` (what waits, served fairly), `slots.ts` (which image is in which slot), `jobs.ts` (what is
// requested, and how a batch of it runs), `answers.ts` (from a batch back to the jobs), `recovery.ts` (what to do if the
// model fails).

import { ItemError, ModelError, UsageError } from '../../errors.ts';
import type { ImageGeometry, Model } from '../../graph/model.ts';
import type { AbortSignalLike } from '../../host-types.ts';
import { deliver, settle } from './answers.ts';
import {
  type Answers,
  type Batch,
  batchSizeOf,
  type ErrorSums,
  type Evaluations,
  type Job,
  type Kind,
  type Lease,
  type LeaseRequest,
  type NetworkInput,
  type OnRow,
  rowsOf,
  rowsOfBatch,
  runBatch,
  type User,
  type Work,
} from './jobs.ts';
import { deferred } from './notifier.ts';
import { Queues } from './queues.ts';
import { recoveryFrom } from './recovery.ts';
import { Slots } from './slots.ts';

/**
 * Opens a model: once at the start, and again after a lost device. If the device ran out of memory, `batchSize` is the
 * size to try, half of the previous one.
 */
export type OpenModel = (request?: { readonly batchSize: number }) => Promise<Model>;

/** Number of batches in flight: with two, the device never waits for JavaScript. */
export const DEPTH = 2;

/** An image with a slot, and what can be requested for it. Promises reject after the image is released. */
export interface LeasedImage {
  /** Returns the errors of some evaluations, in their order. Rejects with `ItemError` if one is NaN or infinity. */
  errors(rows: Evaluations): Promise<Float32Array>;
  /** Passes each error and its gradient with respect to the image to `onRow`. */
  gradients(rows: Evaluations, onRow: OnRow): Promise<void>;
  /** Passes the gradient of each weighted sum of errors to `onRow`; undefined if that would not be cheaper. */
  readonly sums?: (rows: ErrorSums, onRow: OnRow) => Promise<void>;
  /** Gives the slot back. Requests that were not sent reject with `reason`. A second call does nothing. */
  release(reason?: unknown): void;
}

/**
 * Runs a model, which it owns, for any number of users at once.
 *
 * A full batch is sent while fewer than two are in flight. A partial batch is sent only if none is in flight and all
 * users have had a turn of the event loop to request more.
 *
 * If the device is lost (`DeviceLostError`), the model is opened again, and what was in flight runs again. If the device
 * runs out of memory, the same happens with half the batch. After two losses without a finished batch between them, and
 * after any other error of the model, everything rejects with that error.
 */
export class Batcher {
  #model: Model;
  #evaluations = 0;
  readonly #openModel: OpenModel;
  readonly #queues = new Queues();
  readonly #slots: Slots;
  readonly #inFlight = new Set<Batch>();
  /** Resolves after the answers to all batches so far were delivered, which happens in the order of the batches. */
  #delivered: Promise<void> = Promise.resolve();
  /** Losses of the device since a batch last finished. */
  #losses = 0;
  #reopenWith: { readonly batchSize: number } | undefined;
  #reopening = false;
  #turn: NodeJS.Immediate | undefined;
  #ended: { readonly reason: unknown } | undefined;
  /** Resolves after the last image has left its slot. Exists since `drain` was called. */
  #draining: ReturnType<typeof deferred> | undefined;

  constructor(openModel: OpenModel, model: Model) {
    this.#openModel = openModel;
    this.#model = model;
    this.#slots = new Slots(model.slots);
  }

  /** The current model. After a lost device it is another one with the same candidates and levels. */
  get model(): Model {
    return this.#model;
  }

  /** Number of rows answered so far: evaluations, gradients and products with the Jacobian. */
  get evaluations(): number {
    return this.#evaluations;
  }

  /** Adds a user, who shares slots and batches fairly with the others: a stream, or all single calls together. */
  user(): User {
    return { slots: 0, requests: new Set(), parts: new Map() };
  }

  /**
   * Waits for a slot and puts an image [c, h, w] there; `geometry` as in `Model.encode`. A free slot goes to the user with the fewest slots.
   *
   * @throws ItemError for another shape than the model takes, UsageError for a seed if the model has a file of noises,
   *   the reason of `signal` if it aborts before a slot is free, and the error that ended the batcher, if any.
   */
  lease(
    user: User,
    image: Float32Array,
    {
      seed,
      signal,
      geometry,
    }: {
      readonly seed?: bigint | undefined;
      readonly signal?: AbortSignalLike | undefined;
      readonly geometry?: ImageGeometry | undefined;
    } = {},
  ): Promise<LeasedImage> {
    return new Promise((resolve, reject) => {
      if (this.#draining) throw new UsageError('the classifier is closed');
      this.#check(image);
      signal?.throwIfAborted();
      if (seed !== undefined && this.#model.noisePairing === 'visit')
        throw new UsageError('a seed was given, but the noise of this model comes from a file');
      const lease: Lease = { image, geometry, seed, slot: undefined, inFlight: 0, released: false };
      const request: LeaseRequest = {
        lease,
        reject: (reason) => {
          signal?.removeEventListener('abort', cancel);
          reject(reason);
        },
        grant: () => {
          signal?.removeEventListener('abort', cancel);
          this.#slots.leases.add(lease);
          resolve(this.#leased(user, lease));
        },
      };
      const cancel = () => {
        this.#queues.cancel(user, request);
        reject(signal!.reason);
      };
      signal?.addEventListener('abort', cancel);
      this.#queues.wait(user, request);
      this.#fillSlots();
    });
  }

  /** Runs the network alone on a noised image. */
  predict(user: User, kind: 'predict' | 'pullBack', rows: NetworkInput, onRow: OnRow): Promise<void> {
    return this.#request(user, { kind, rows }, onRow, rows.xt);
  }

  /** Rejects all requests with `reason`, and closes the model. A second call does nothing. */
  close(reason: unknown = new UsageError('the classifier is closed')): void {
    if (this.#ended) return;
    this.#ended = { reason };
    clearImmediate(this.#turn);
    for (const { parts } of this.#inFlight) for (const { job } of parts) settle(job, { reason });
    this.#inFlight.clear();
    for (const { job } of this.#queues.clear(reason)) settle(job, { reason });
    this.#slots.leases.clear();
    this.#draining?.resolve();
    if (!this.#reopening) this.#model.close();
  }

  /** Refuses new images, waits until those with a slot are released, and closes the model. */
  async drain(): Promise<void> {
    if (this.#ended) return;
    this.#draining ??= deferred();
    this.#queues.refuse(new UsageError('the classifier is closed'));
    this.#drained();
    await this.#draining.promise;
    this.close();
  }

  /** Lets `drain` go on if no image has a slot. */
  #drained(): void {
    if (this.#slots.leases.size === 0) this.#draining?.resolve();
  }

  /** Throws the error that ended the batcher, if any, and `ItemError` for an image of another shape than the model takes. */
  #check(image?: Float32Array): void {
    if (this.#ended) throw this.#ended.reason;
    const [c, h, w] = this.#model.inputShape;
    if (image && image.length !== c * h * w)
      throw new ItemError(
        'wrong-shape',
        `expected an image of ${c}x${h}x${w} values, got ${image.length} values`,
      );
  }

  /** Makes the requests of an image with a slot. */
  #leased(user: User, lease: Lease): LeasedImage {
    const request = (work: Work, onRow: OnRow): Promise<void> => {
      if (lease.released) return Promise.reject(new Error('the image was released'));
      return this.#request(user, work, onRow);
    };
    return {
      errors: async (rows) => {
        const errors = new Float32Array(rows.level.length);
        await request({ kind: 'errors', lease, rows }, (i, error) => {
          errors[i] = error;
        });
        return errors;
      },
      gradients: (rows, onRow) => request({ kind: 'gradients', lease, rows }, onRow),
      ...(this.#model.differentiable?.viewGradients && {
        sums: (rows: ErrorSums, onRow: OnRow) => request({ kind: 'sums', lease, rows }, onRow),
      }),
      release: (reason) => this.#release(user, lease, reason),
    };
  }

  #request(user: User, work: Work, onRow: OnRow, image?: Float32Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#check(image);
      batchSizeOf(this.#model, work.kind); // throws if the model cannot answer
      const count = rowsOf(work);
      const job: Job = { user, work, count, onRow, answered: 0, settled: false, resolve, reject };
      if (count === 0) {
        settle(job);
        return;
      }
      this.#queues.push({ job, from: 0, to: count });
      this.#pump();
    });
  }

  #release(user: User, lease: Lease, reason: unknown = new Error('the image was released')): void {
    if (this.#ended || lease.released) return;
    lease.released = true;
    user.slots--;
    for (const { job } of this.#queues.drop(user, lease)) settle(job, { reason });
    this.#vacate(lease);
  }

  /** Frees the slot of a released image if nothing of it is in flight, and gives it to the next one. */
  #vacate(lease: Lease): void {
    if (!this.#slots.vacate(lease)) return;
    this.#drained();
    this.#fillSlots();
  }

  /** Gives free slots to images that lost theirs with a device, then to those that wait for one. */
  #fillSlots(): void {
    if (this.#paused) return;
    while (this.#slots.hasFree) {
      const evicted = this.#slots.nextWithout();
      if (evicted) {
        if (!this.#encode(evicted)) return;
        continue;
      }
      const request = this.#queues.nextWaiting();
      if (!request) return;
      request.grant();
      if (!this.#encode(request.lease)) return;
    }
  }

  /** Puts an image into a free slot. Returns false if the model failed, after starting the recovery. */
  #encode(lease: Lease): boolean {
    const slot = this.#slots.assign(lease);
    try {
      this.#model.encode(slot, lease.image, lease.geometry);
      return true;
    } catch (error) {
      this.#lose(error, 'errors');
      return false;
    }
  }

  /** Whether nothing can be sent now: the model is being opened again, or is closed. */
  get #paused(): boolean {
    return this.#reopening || this.#ended !== undefined;
  }

  /** Sends as many full batches as may be in flight; if none is, a partial one after a turn of the event loop. */
  #pump(): void {
    if (this.#paused) return;
    while (this.#inFlight.size < DEPTH) {
      const full = this.#queues.kindWith((kind) => batchSizeOf(this.#model, kind));
      if (full === undefined || !this.#send(full)) break;
    }
    if (this.#inFlight.size > 0 || this.#queues.kindWith(() => 1) === undefined) return;
    this.#turn ??= setImmediate(() => {
      this.#turn = undefined;
      if (this.#paused || this.#inFlight.size > 0) return;
      const kind = this.#queues.kindWith(() => 1);
      if (kind !== undefined) this.#send(kind);
    });
  }

  /** Sends a batch of a kind. Returns false if no row of it can be sent. */
  #send(kind: Kind): boolean {
    const parts = this.#queues.take(kind, batchSizeOf(this.#model, kind));
    if (parts.length === 0) return false;
    const batch: Batch = { kind, parts };
    this.#inFlight.add(batch);
    const answers = runBatch(this.#model, batch);
    const before = this.#delivered;
    this.#delivered = answers.then(
      async (found) => {
        await before;
        if (!this.#inFlight.delete(batch)) return;
        this.#losses = 0;
        try {
          this.#answer(batch, found);
        } catch (error) {
          this.close(error);
        }
        this.#pump();
      },
      async (error: unknown) => {
        await before;
        if (this.#inFlight.has(batch)) this.#lose(error, kind);
      },
    );
    return true;
  }

  /** Passes the answers to a batch on, and frees the slots of released images that waited for them. */
  #answer(batch: Batch, answers: Answers): void {
    for (const job of deliver(this.#model, batch, answers)) this.#queues.forget(job);
    this.#evaluations += rowsOfBatch(batch);
    const leases = batch.parts.flatMap(({ job, from, to }) => {
      const { lease } = job.work;
      if (lease) lease.inFlight -= to - from;
      return lease ?? [];
    });
    for (const lease of leases) this.#vacate(lease);
  }

  /** Opens the model again after an error, or closes the batcher with that error. */
  #lose(error: unknown, kind: Kind): void {
    if (this.#paused) return;
    const size = batchSizeOf(this.#model, kind);
    const recovery = recoveryFrom(error, size, this.#losses);
    if (!recovery) {
      this.close(error);
      return;
    }
    this.#losses = recovery.losses;
    this.#reopenWith = recovery.request ?? this.#reopenWith;
    this.#reopening = true;
    this.#queues.putBack([...this.#inFlight].flatMap(({ parts }) => parts));
    this.#inFlight.clear();
    this.#slots.renumber(0);
    this.#model.close();
    this.#openModel(this.#reopenWith)
      .then((model) => this.#reopened(model, recovery.request && { error, kind, size }))
      .catch((failed: unknown) => this.close(failed));
  }

  /** Goes on with a model that was opened again. `full` is the batch for which memory did not suffice. */
  #reopened(
    model: Model,
    full: { readonly error: unknown; readonly kind: Kind; readonly size: number } | undefined,
  ): void {
    if (this.#ended) {
      model.close();
      return;
    }
    const before = this.#model;
    this.#reopening = false;
    this.#model = model;
    if (model.candidates.length !== before.candidates.length || model.levels.length !== before.levels.length)
      throw new ModelError(
        `${before.name}: expected the same candidates and levels after opening the model again, got others`,
      );
    if (full && batchSizeOf(model, full.kind) >= full.size) throw full.error;
    this.#slots.renumber(model.slots);
    this.#drained();
    this.#fillSlots();
    this.#pump();
  }
}
