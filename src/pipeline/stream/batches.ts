// A model at work: its batches in flight, and another model where it is lost under way.

import type { Model } from '../../graph/model.ts';
import { ModelError } from '../../kernels/errors.ts';
import { ItemError } from '../errors.ts';
import { recoveryFrom } from './recovery.ts';

/**
 * Opens a model: once at the start, and again after a lost device. After the device ran out of memory,
 * `batchSize` says what to try, half of what it was.
 */
export type OpenModel = (wanted?: { readonly batchSize: number }) => Promise<Model>;

/** Batches in flight, so that the device never waits for JavaScript. */
export const DEPTH = 2;

/**
 * A model that is kept busy. A full batch goes out while fewer than two are in flight; a partial one only when none
 * is in flight and everybody who could ask for more has had a turn of the event loop to do so. Owns the model.
 *
 * Lost device (`DeviceLostError`): the model is opened again, and what was in flight runs again. Out of memory: the
 * same with half the batch. Two losses without a finished batch between them, and any other error of the model, end
 * everything with that error.
 */
export abstract class BatchesInFlight<Batch> {
  #model: Model;
  #evaluations = 0;
  readonly #openModel: OpenModel;
  readonly #inFlight = new Set<Batch>();
  #losses = 0;
  #wanted: { readonly batchSize: number } | undefined;
  #reopening = false;
  #turn: NodeJS.Immediate | undefined;
  #ended: { readonly reason: unknown } | undefined;

  constructor(openModel: OpenModel, model: Model) {
    this.#openModel = openModel;
    this.#model = model;
  }

  /** Evaluations that fill a batch of a model. */
  protected abstract sizeOf(model: Model): number;
  /** Evaluations that wait to be sent. */
  protected abstract get waiting(): number;
  /** Takes a batch off what waits and sends it; false where nothing can be sent. */
  protected abstract issue(): boolean;
  /** Puts batches that will not come back in front of what waits; nothing is on the model any more. */
  protected abstract stepBack(batches: readonly Batch[]): void;
  /** Begins with a model that was opened again. */
  protected abstract resume(model: Model): void;
  /** Rejects all that is in flight, and all that waits. */
  protected abstract rejectAll(reason: unknown, batches: readonly Batch[]): void;

  /** The model as it is now: another one after a lost device, with the same candidates and levels. */
  get model(): Model {
    return this.#model;
  }

  /** Evaluations that came back so far, each gradient and each product with the Jacobian one. */
  get evaluations(): number {
    return this.#evaluations;
  }

  /** Ends everything that waits, with `reason`, and closes the model. A second call does nothing. */
  close(reason: unknown = new Error('the session is closed')): void {
    if (this.#ended) return;
    this.#ended = { reason };
    clearImmediate(this.#turn);
    this.rejectAll(reason, [...this.#inFlight]);
    this.#inFlight.clear();
    if (!this.#reopening) this.#model.close();
  }

  /** @throws what ended everything, and ItemError for an image of another shape than the model takes. */
  protected check(image?: Float32Array): void {
    if (this.#ended) throw this.#ended.reason;
    const [c, h, w] = this.#model.inputShape;
    if (image && image.length !== c * h * w)
      throw new ItemError('wrong-shape', `image has ${image.length} values, the model wants ${c}x${h}x${w}`);
  }

  protected get ended(): boolean {
    return this.#ended !== undefined;
  }

  /** Whether there is no model to send anything to, yet or any more. */
  protected get paused(): boolean {
    return this.#reopening || this.ended;
  }

  /** Sends what can be sent. To be called whenever more waits. */
  protected pump(): void {
    if (this.paused) return;
    while (this.#inFlight.size < DEPTH && this.waiting >= this.sizeOf(this.#model)) if (!this.issue()) break;
    if (this.#inFlight.size > 0 || this.waiting === 0) return;
    this.#turn ??= setImmediate(() => {
      this.#turn = undefined;
      if (!this.paused && this.#inFlight.size === 0 && this.waiting > 0) this.issue();
    });
  }

  /** Waits for the answers to a batch of `count` evaluations, which `land` then takes. */
  protected send<T>(batch: Batch, count: number, answers: Promise<T>, land: (answers: T) => void): void {
    this.#inFlight.add(batch);
    answers.then(
      (found) => {
        if (!this.#inFlight.delete(batch)) return;
        this.#evaluations += count;
        this.#losses = 0;
        land(found);
        this.pump();
      },
      (error: unknown) => {
        if (this.#inFlight.has(batch)) this.lose(error);
      },
    );
  }

  /** Meets an error of the model. */
  protected lose(error: unknown): void {
    if (this.paused) return;
    const recovery = recoveryFrom(error, this.sizeOf(this.#model), this.#losses);
    if (!recovery) {
      this.close(error);
      return;
    }
    this.#losses = recovery.losses;
    this.#wanted = recovery.wanted ?? this.#wanted;
    this.#reopening = true;
    this.stepBack([...this.#inFlight]);
    this.#inFlight.clear();
    this.#model.close();
    this.#openModel(this.#wanted)
      .then((model) => this.#reopened(model, recovery.wanted ? { error } : undefined))
      .catch((failed: unknown) => this.close(failed));
  }

  #reopened(model: Model, full: { readonly error: unknown } | undefined): void {
    if (this.#ended) {
      model.close();
      return;
    }
    const before = this.#model;
    this.#reopening = false;
    this.#model = model;
    if (model.candidates.length !== before.candidates.length || model.levels.length !== before.levels.length)
      throw new ModelError(`${before.name}: opened again with other candidates or levels`);
    if (full && this.sizeOf(model) >= this.sizeOf(before)) throw full.error;
    this.resume(model);
    this.pump();
  }
}

/** The slots of a model, all free, the first to be taken last. */
export const freeSlots = ({ slots }: Model): number[] =>
  Array.from({ length: slots }, (_, i) => slots - 1 - i);
