// A session with a model: images take its slots, evaluations of all of them fill its batches, and a lost
// device is replaced under way. It decides when things run, never what is asked, so no result depends on it.

import type { Model } from '../../graph/model.ts';
import { ModelError } from '../../kernels/errors.ts';
import type { Fan } from '../deciding/trial.ts';
import { ItemError } from '../errors.ts';
import { recoveryFrom } from './recovery.ts';
import { type Piece, type Request, type Seat, take, toBatch } from './seats.ts';

/**
 * Opens a model: once at the start, and again after a lost device. After the device ran out of memory,
 * `batchSize` says what to try, half of what it was.
 */
export type OpenModel = (wanted?: { readonly batchSize: number }) => Promise<Model>;

/** An image's place in a session. */
export interface Ticket {
  readonly pixels: Float32Array;
}

/** Batches in flight, so that the device never waits for JavaScript. */
const DEPTH = 2;

/**
 * Opens a model and begins a session with it.
 *
 * Batches are filled with evaluations of all images in flight, those of images admitted first before the
 * others. A full batch goes out while fewer than two are in flight; a partial one only when none is in flight
 * and everybody who could ask for more has had a turn of the event loop to do so.
 *
 * Lost device (`DeviceLostError`): the model is opened again, the images are put back, and what was in flight
 * runs again. Out of memory: the same with half the batch. Two losses without a finished batch between them,
 * and any other error of the model, end the session with that error.
 */
export const openSession = async (openModel: OpenModel): Promise<Session> =>
  new Session(openModel, await openModel());

/** Images on the device and evaluations in flight. Owns the model. */
export class Session {
  #model: Model;
  #evaluations = 0;
  readonly #openModel: OpenModel;
  /** In the order of admission, which is the order of service. */
  readonly #seats = new Set<Seat>();
  #free: number[];
  /** Evaluations asked for and not issued. */
  #pending = 0;
  readonly #inFlight = new Set<readonly Piece[]>();
  #losses = 0;
  #wanted: { readonly batchSize: number } | undefined;
  #reopening = false;
  #turn: NodeJS.Immediate | undefined;
  #ended: { readonly reason: unknown } | undefined;

  constructor(openModel: OpenModel, model: Model) {
    this.#openModel = openModel;
    this.#model = model;
    this.#free = slotsOf(model);
  }

  /** The model as it is now: another one after a lost device, with the same candidates and levels. */
  get model(): Model {
    return this.#model;
  }

  /** Evaluations that came back so far. */
  get evaluations(): number {
    return this.#evaluations;
  }

  /** Waits for a free slot and puts an image [c, h, w] there; rejects with `ItemError` for another shape. */
  admit(pixels: Float32Array): Promise<Ticket> {
    const [c, h, w] = this.#model.inputShape;
    return new Promise((seated, refused) => {
      if (this.#ended) throw this.#ended.reason;
      if (pixels.length !== c * h * w)
        throw new ItemError(
          'wrong-shape',
          `image has ${pixels.length} values, the model wants ${c}x${h}x${w}`,
        );
      this.#seats.add({ pixels, seated, refused, slot: undefined, wanted: [], inFlight: 0, released: false });
      this.#fillSlots();
    });
  }

  /**
   * The errors of some candidates of an admitted image at one (level, noise), in the order of
   * `fan.candidates`; rejects with `ItemError` where the model returns what is not a finite number.
   */
  errors(ticket: Ticket, fan: Fan): Promise<Float32Array> {
    return new Promise((resolve, reject) => {
      if (this.#ended) throw this.#ended.reason;
      const seat = this.#seatOf(ticket);
      const count = fan.candidates.length;
      const request = { seat, fan, errors: new Float32Array(count), missing: count, resolve, reject };
      if (count === 0) resolve(request.errors);
      else seat.wanted.push({ request, from: 0, to: count });
      this.#pending += count;
      this.#pump();
    });
  }

  /** Gives an image's slot back; what it still waits for is dropped. A second call does nothing. */
  release(ticket: Ticket): void {
    if (this.#ended) return;
    const seat = this.#seatOf(ticket);
    if (seat.released) return;
    seat.released = true;
    for (const { from, to } of seat.wanted.splice(0)) this.#pending -= to - from;
    this.#vacate(seat);
  }

  /** Ends everything that waits, with `reason`, and closes the model. A second call does nothing. */
  close(reason: unknown = new Error('the session is closed')): void {
    if (this.#ended) return;
    this.#ended = { reason };
    clearImmediate(this.#turn);
    for (const pieces of this.#inFlight) for (const { request } of pieces) request.reject(reason);
    for (const seat of this.#seats) {
      seat.refused(reason);
      for (const { request } of seat.wanted) request.reject(reason);
    }
    this.#inFlight.clear();
    this.#seats.clear();
    if (!this.#reopening) this.#model.close();
  }

  #seatOf(ticket: Ticket): Seat {
    const seat = ticket as Seat;
    if (!this.#seats.has(seat) && !seat.released)
      throw new Error('this image was admitted by another session');
    return seat;
  }

  #fillSlots(): void {
    if (this.#reopening || this.#ended) return;
    for (const seat of this.#seats) {
      if (seat.slot !== undefined) continue;
      const slot = this.#free.pop();
      if (slot === undefined) return;
      seat.slot = slot;
      try {
        this.#model.encode(slot, seat.pixels);
      } catch (error) {
        this.#lose(error);
        return;
      }
      seat.seated(seat);
    }
  }

  #vacate(seat: Seat): void {
    if (!seat.released || seat.inFlight > 0 || !this.#seats.delete(seat)) return;
    if (seat.slot !== undefined) this.#free.push(seat.slot);
    this.#fillSlots();
  }

  #pump(): void {
    if (this.#reopening || this.#ended) return;
    while (this.#inFlight.size < DEPTH && this.#pending >= this.#model.batchSize) if (!this.#issue()) break;
    if (this.#inFlight.size > 0 || this.#pending === 0) return;
    this.#turn ??= setImmediate(() => {
      this.#turn = undefined;
      if (this.#reopening || this.#ended || this.#inFlight.size > 0) return;
      if (this.#pending > 0) this.#issue();
    });
  }

  #issue(): boolean {
    const pieces = take(this.#seats, this.#model.batchSize);
    if (pieces.length === 0) return false;
    for (const { from, to } of pieces) this.#pending -= to - from;
    this.#inFlight.add(pieces);
    const model = this.#model;
    new Promise<Float32Array>((resolve) => resolve(model.errors(toBatch(pieces)))).then(
      (errors) => this.#land(pieces, errors),
      (error: unknown) => {
        if (this.#inFlight.has(pieces)) this.#lose(error);
      },
    );
    return true;
  }

  #land(pieces: readonly Piece[], errors: Float32Array): void {
    if (!this.#inFlight.has(pieces)) return;
    const asked = pieces.reduce((sum, { from, to }) => sum + to - from, 0);
    if (errors.length !== asked) {
      this.close(new ModelError(`${this.#model.name}: ${errors.length} errors for ${asked} evaluations`));
      return;
    }
    this.#inFlight.delete(pieces);
    this.#evaluations += asked;
    this.#losses = 0;
    let at = 0;
    const seats = new Set<Seat>();
    for (const { request, from, to } of pieces) {
      request.errors.set(errors.subarray(at, at + to - from), from);
      at += to - from;
      request.missing -= to - from;
      request.seat.inFlight -= to - from;
      seats.add(request.seat);
      if (request.missing === 0) this.#settle(request);
    }
    for (const seat of seats) this.#vacate(seat);
    this.#pump();
  }

  #settle({ fan, errors, resolve, reject }: Request): void {
    const bad = errors.findIndex((error) => !Number.isFinite(error));
    if (bad < 0) {
      resolve(errors);
      return;
    }
    const { candidates, levels } = this.#model;
    const { t, sigma } = levels[fan.level] ?? {};
    const where = t === undefined ? `sigma ${sigma}` : `t ${t}`;
    const label = candidates[fan.candidates[bad]!]?.label;
    reject(new ItemError('not-finite', `the model's error for "${label}" at ${where} is ${errors[bad]}`));
  }

  #lose(error: unknown): void {
    if (this.#reopening || this.#ended) return;
    const recovery = recoveryFrom(error, this.#model.batchSize, this.#losses);
    if (!recovery) {
      this.close(error);
      return;
    }
    this.#losses = recovery.losses;
    this.#wanted = recovery.wanted ?? this.#wanted;
    this.#reopening = true;
    this.#stepBack();
    this.#model.close();
    this.#openModel(this.#wanted).then(
      (model) => this.#resume(model, recovery.wanted ? { error } : undefined),
      (failed: unknown) => this.close(failed),
    );
  }

  /** Puts what was in flight back in front of what is asked for, and takes every image off its slot. */
  #stepBack(): void {
    for (const pieces of [...this.#inFlight].reverse())
      for (const piece of [...pieces].reverse()) {
        const { seat } = piece.request;
        seat.inFlight = 0;
        if (seat.released) continue;
        seat.wanted.unshift(piece);
        this.#pending += piece.to - piece.from;
      }
    this.#inFlight.clear();
    for (const seat of this.#seats) {
      seat.slot = undefined;
      if (seat.released) this.#seats.delete(seat);
    }
  }

  #resume(model: Model, full: { readonly error: unknown } | undefined): void {
    if (this.#ended) {
      model.close();
      return;
    }
    const { name, candidates, levels, batchSize } = this.#model;
    this.#reopening = false;
    this.#model = model;
    this.#free = slotsOf(model);
    if (model.candidates.length !== candidates.length || model.levels.length !== levels.length)
      this.close(new ModelError(`${name}: opened again with other candidates or levels`));
    if (full && model.batchSize >= batchSize) this.close(full.error);
    this.#fillSlots();
    this.#pump();
  }
}

const slotsOf = ({ slots }: Model): number[] => Array.from({ length: slots }, (_, i) => slots - 1 - i);
