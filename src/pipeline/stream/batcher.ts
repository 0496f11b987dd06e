// The one place where a model is run. Streams, single calls, purifications and attacks ask for evaluations of their
// images; the batcher fills common batches with them and replaces a lost device. It decides when things run, never what
// is asked, so no result depends on who else asks.

import { ItemError, ModelError, UsageError } from '../../errors.ts';
import type { Model } from '../../graph/model.ts';
import type { AbortSignalLike } from '../../host-types.ts';
import {
  type BatchPart,
  batchSizeOf,
  type ErrorSums,
  type Evaluations,
  type Job,
  type Kind,
  type Lease,
  type OnRow,
  type Prediction,
  rowsOf,
  runBatch,
  type Work,
} from './jobs.ts';
import { Queues, type User } from './queues.ts';
import { recoveryFrom } from './recovery.ts';

/**
 * Opens a model: once at the start, and again after a lost device. After the device ran out of memory, `batchSize` is
 * the size to try, half of the one before.
 */
export type OpenModel = (request?: { readonly batchSize: number }) => Promise<Model>;

/** Batches in flight, so that the device never waits for JavaScript. */
export const DEPTH = 2;

interface Batch {
  readonly kind: Kind;
  readonly parts: readonly BatchPart[];
}

/** What an image asks of the model while it has a slot. Promises reject once the image is released. */
export interface LeasedImage {
  /** The errors of some evaluations, in their order. Rejects with `ItemError` if one is NaN or infinite. */
  errors(rows: Evaluations): Promise<Float32Array>;
  /** Errors with their gradients with respect to the image. */
  gradients(rows: Evaluations, onRow: OnRow): Promise<void>;
  /** Gradients of weighted sums of errors, one per view; undefined if the model gains nothing by it. */
  readonly sums?: (rows: ErrorSums, onRow: OnRow) => Promise<void>;
  /** Gives the slot back; what was asked and not sent rejects with `reason`. A second call does nothing. */
  release(reason?: unknown): void;
}

/**
 * Runs a model for any number of users at once. Owns the model.
 *
 * A full batch goes out while fewer than two are in flight. A partial batch goes out only if none is in flight and
 * everybody who could ask for more has had a turn of the event loop to do so.
 *
 * Lost device (`DeviceLostError`): the model is opened again, and what was in flight runs again. Out of memory: the same
 * with half the batch. Two losses without a finished batch between them, and any other error of the model, end
 * everything with that error.
 */
export class Batcher {
  #model: Model;
  #evaluations = 0;
  readonly #openModel: OpenModel;
  readonly #queues = new Queues();
  /** Every image that was given a slot and is not released, in that order. */
  readonly #leases = new Set<Lease>();
  #freeSlots: number[];
  readonly #inFlight = new Set<Batch>();
  /** Settles when the answers to all batches so far were taken: answers are taken in the order of the batches. */
  #taken: Promise<void> = Promise.resolve();
  #losses = 0;
  #request: { readonly batchSize: number } | undefined;
  #reopening = false;
  #turn: NodeJS.Immediate | undefined;
  #ended: { readonly reason: unknown } | undefined;
  #draining: { readonly promise: Promise<void>; readonly done: () => void } | undefined;

  constructor(openModel: OpenModel, model: Model) {
    this.#openModel = openModel;
    this.#model = model;
    this.#freeSlots = slotsOf(model);
  }

  /** The model as it is now: another one after a lost device, with the same candidates and levels. */
  get model(): Model {
    return this.#model;
  }

  /** Rows answered so far: evaluations, gradients, products with the Jacobian. */
  get evaluations(): number {
    return this.#evaluations;
  }

  /** Joins as somebody who shares slots and batches fairly with the others: a stream, or all single calls together. */
  user(): User {
    return this.#queues.user();
  }

  /**
   * Waits for a slot and puts an image [c, h, w] there. A free slot goes to the user that has the fewest.
   *
   * @throws ItemError for another shape than the model takes, UsageError for a seed if the model has a file of noises,
   *   the reason of `signal` if it aborts before there is a slot, and what ended the batcher.
   */
  lease(
    user: User,
    image: Float32Array,
    {
      seed,
      signal,
    }: { readonly seed?: bigint | undefined; readonly signal?: AbortSignalLike | undefined } = {},
  ): Promise<LeasedImage> {
    return new Promise((resolve, reject) => {
      if (this.#draining) throw new UsageError('the classifier is closed');
      this.#check(image);
      signal?.throwIfAborted();
      if (seed !== undefined && this.#model.noisePairing === 'visit')
        throw new UsageError('a seed was given, but the noise of this model comes from a file');
      const lease: Lease = { image, seed, slot: undefined, inFlight: 0, released: false };
      const request = {
        lease,
        reject: (reason: unknown) => {
          signal?.removeEventListener('abort', cancel);
          reject(reason);
        },
        grant: () => {
          signal?.removeEventListener('abort', cancel);
          this.#leases.add(lease);
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

  /** Runs the network alone at a noised image. */
  predict(user: User, kind: 'predict' | 'pullBack', rows: Prediction, onRow: OnRow): Promise<void> {
    return this.#ask(user, { kind, rows }, onRow, rows.xt);
  }

  /** Rejects everything that waits or is in flight with `reason`, and closes the model. A second call does nothing. */
  close(reason: unknown = new UsageError('the classifier is closed')): void {
    if (this.#ended) return;
    this.#ended = { reason };
    clearImmediate(this.#turn);
    for (const { parts } of this.#inFlight) for (const { job } of parts) this.#settle(job, { reason });
    this.#inFlight.clear();
    for (const { job } of this.#queues.clear(reason)) this.#settle(job, { reason });
    this.#leases.clear();
    this.#draining?.done();
    if (!this.#reopening) this.#model.close();
  }

  /** Takes no new image, waits until those that have a slot are released, and closes the model. */
  async drain(): Promise<void> {
    if (this.#ended) return;
    this.#draining ??= waiter();
    this.#queues.refuse(new UsageError('the classifier is closed'));
    this.#drained();
    await this.#draining.promise;
    this.close();
  }

  #drained(): void {
    if (this.#leases.size === 0) this.#draining?.done();
  }

  /** @throws what ended everything, and ItemError for an image of another shape than the model takes. */
  #check(image?: Float32Array): void {
    if (this.#ended) throw this.#ended.reason;
    const [c, h, w] = this.#model.inputShape;
    if (image && image.length !== c * h * w)
      throw new ItemError(
        'wrong-shape',
        `expected an image of ${c}x${h}x${w} values, got ${image.length} values`,
      );
  }

  #leased(user: User, lease: Lease): LeasedImage {
    const ask = (work: Work, onRow: OnRow): Promise<void> => {
      if (lease.released) return Promise.reject(new Error('the image was released'));
      return this.#ask(user, work, onRow);
    };
    return {
      errors: async (rows) => {
        const errors = new Float32Array(rows.level.length);
        await ask({ kind: 'errors', lease, rows }, (i, error) => {
          errors[i] = error;
        });
        return errors;
      },
      gradients: (rows, onRow) => ask({ kind: 'gradients', lease, rows }, onRow),
      ...(this.#model.differentiable?.viewGradients && {
        sums: (rows: ErrorSums, onRow: OnRow) => ask({ kind: 'sums', lease, rows }, onRow),
      }),
      release: (reason) => this.#release(user, lease, reason),
    };
  }

  #ask(user: User, work: Work, onRow: OnRow, image?: Float32Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#check(image);
      batchSizeOf(this.#model, work.kind); // throws if the model cannot answer
      const count = rowsOf(work);
      const job: Job = { work, count, onRow, answered: 0, settled: false, resolve, reject };
      if (count === 0) {
        this.#settle(job);
        return;
      }
      this.#queues.push(user, { job, from: 0, to: count });
      this.#pump();
    });
  }

  #release(user: User, lease: Lease, reason: unknown = new Error('the image was released')): void {
    if (this.#ended || lease.released) return;
    lease.released = true;
    user.slots--;
    for (const { job } of this.#queues.drop(user, lease)) this.#settle(job, { reason });
    this.#vacate(lease);
  }

  /** Frees the slot of a released image once nothing of it is in flight. */
  #vacate(lease: Lease): void {
    if (!lease.released || lease.inFlight > 0 || !this.#leases.delete(lease)) return;
    if (lease.slot !== undefined) this.#freeSlots.push(lease.slot);
    this.#drained();
    this.#fillSlots();
  }

  /** Gives free slots to images that lost theirs with a device, then to those that wait for one. */
  #fillSlots(): void {
    if (this.#paused) return;
    for (const lease of this.#leases) {
      if (lease.slot !== undefined || lease.released) continue;
      if (this.#freeSlots.length === 0) return;
      if (!this.#encode(lease)) return;
    }
    while (this.#freeSlots.length > 0) {
      const request = this.#queues.nextWaiting();
      if (!request) return;
      request.grant();
      if (!this.#encode(request.lease)) return;
    }
  }

  /** Puts an image into a free slot; false if the model failed, which is dealt with. */
  #encode(lease: Lease): boolean {
    lease.slot = this.#freeSlots.pop()!;
    try {
      this.#model.encode(lease.slot, lease.image);
      return true;
    } catch (error) {
      this.#lose(error, 'errors');
      return false;
    }
  }

  /** Whether there is no model to send anything to, yet or any more. */
  get #paused(): boolean {
    return this.#reopening || this.#ended !== undefined;
  }

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

  /** Sends a batch of a kind; false if nothing of it can be sent. */
  #send(kind: Kind): boolean {
    const parts = this.#queues.take(kind, batchSizeOf(this.#model, kind));
    if (parts.length === 0) return false;
    const batch: Batch = { kind, parts };
    this.#inFlight.add(batch);
    const answers = runBatch(this.#model, kind, parts);
    const before = this.#taken;
    this.#taken = answers.then(
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

  #answer(
    { kind, parts }: Batch,
    { errors, gradients }: { errors?: Float32Array; gradients?: Float32Array },
  ): void {
    const count = parts.reduce((sum, { from, to }) => sum + to - from, 0);
    const answers = (errors ?? gradients!).length;
    if (errors ? answers !== count : answers % count !== 0)
      throw new ModelError(`${this.#model.name}: expected ${count} answers (${kind}), got ${answers}`);
    const length = gradients ? gradients.length / count : 0;
    this.#evaluations += count;
    let at = 0;
    for (const { job, from, to } of parts) {
      const { lease } = job.work;
      if (lease) lease.inFlight -= to - from;
      for (let i = from; i < to; i++, at++) {
        if (job.settled) continue;
        const error = errors?.[at] ?? 0;
        const gradient = gradients?.subarray(at * length, (at + 1) * length) ?? NOTHING;
        if (Number.isFinite(error) && gradient.every(Number.isFinite)) job.onRow(i, error, gradient);
        else {
          this.#queues.forget(job);
          this.#settle(job, { reason: notFinite(this.#model, job.work, i, error) });
        }
      }
      job.answered += to - from;
      if (job.answered === job.count) this.#settle(job);
      if (lease) this.#vacate(lease);
    }
  }

  #settle(job: Job, failure?: { readonly reason: unknown }): void {
    if (job.settled) return;
    job.settled = true;
    if (failure) job.reject(failure.reason);
    else job.resolve();
  }

  /** Meets an error of the model: opens it again, or ends everything. */
  #lose(error: unknown, kind: Kind): void {
    if (this.#paused) return;
    const size = batchSizeOf(this.#model, kind);
    const recovery = recoveryFrom(error, size, this.#losses);
    if (!recovery) {
      this.close(error);
      return;
    }
    this.#losses = recovery.losses;
    this.#request = recovery.request ?? this.#request;
    this.#reopening = true;
    this.#queues.putBack([...this.#inFlight].flatMap(({ parts }) => parts));
    this.#inFlight.clear();
    for (const lease of this.#leases) {
      lease.slot = undefined;
      lease.inFlight = 0;
      if (lease.released) this.#leases.delete(lease);
    }
    this.#model.close();
    this.#openModel(this.#request)
      .then((model) => this.#reopened(model, recovery.request && { error, kind, size }))
      .catch((failed: unknown) => this.close(failed));
  }

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
      throw new ModelError(`${before.name}: the model was opened again with other candidates or levels`);
    if (full && batchSizeOf(model, full.kind) >= full.size) throw full.error;
    this.#freeSlots = slotsOf(model);
    this.#drained();
    this.#fillSlots();
    this.#pump();
  }
}

const NOTHING = new Float32Array(0);

/** The slots of a model, the first to be used last in the list. */
const slotsOf = ({ slots }: Model): number[] => Array.from({ length: slots }, (_, i) => slots - 1 - i);

function waiter() {
  let done = (): void => {};
  const promise = new Promise<void>((resolve) => {
    done = resolve;
  });
  return { promise, done };
}

function notFinite({ name, candidates, levels }: Model, { rows }: Work, i: number, error: number): ItemError {
  const index = typeof rows.level === 'number' ? rows.level : rows.level[i]!;
  const { t, sigma } = levels[index] ?? {};
  const where = t === undefined ? `sigma ${sigma}` : `t ${t}`;
  const candidate =
    'candidate' in rows && typeof rows.candidate !== 'number' ? rows.candidate[i]! : undefined;
  const label = candidate === undefined ? undefined : candidates[candidate]?.label;
  const what = label === undefined ? 'NaN or infinity' : `${error} as the error for "${label}"`;
  return new ItemError('not-finite', `${name}: the model returned ${what} at ${where}`);
}
