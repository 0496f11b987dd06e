// A session with a model: images take its slots, evaluations of all of them fill its batches, and a lost
// device is replaced under way. It decides when things run, never what is asked, so no result depends on it.

import type { Model } from '../../graph/model.ts';
import { ModelError } from '../../kernels/errors.ts';
import type { Fan } from '../deciding/trial.ts';
import { ItemError } from '../errors.ts';
import { BatchesInFlight, freeSlots, type OpenModel } from './batches.ts';
import { type Piece, type Request, type Seat, take, toBatch } from './seats.ts';

/** An image's place in a session. */
export interface Ticket {
  readonly pixels: Float32Array;
}

/**
 * Opens a model and begins a session with it.
 *
 * Batches are filled with evaluations of all images in flight, those of images admitted first before the
 * others; when they go out, and how a lost device is met, `BatchesInFlight` says.
 */
export const openSession = async (openModel: OpenModel): Promise<Session> =>
  new Session(openModel, await openModel());

/** Images on the device and evaluations in flight. Owns the model. */
export class Session extends BatchesInFlight<readonly Piece[]> {
  /** In the order of admission, which is the order of service. */
  readonly #seats = new Set<Seat>();
  #free: number[];
  /** Evaluations asked for and not issued. */
  #pending = 0;

  constructor(openModel: OpenModel, model: Model) {
    super(openModel, model);
    this.#free = freeSlots(model);
  }

  /** Waits for a free slot and puts an image [c, h, w] there; rejects with `ItemError` for another shape. */
  admit(pixels: Float32Array): Promise<Ticket> {
    return new Promise((seated, refused) => {
      this.check(pixels);
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
      this.check();
      const seat = this.#seatOf(ticket);
      const count = fan.candidates.length;
      const request = { seat, fan, errors: new Float32Array(count), missing: count, resolve, reject };
      if (count === 0) resolve(request.errors);
      else seat.wanted.push({ request, from: 0, to: count });
      this.#pending += count;
      this.pump();
    });
  }

  /** Gives an image's slot back; what it still waits for is dropped. A second call does nothing. */
  release(ticket: Ticket): void {
    if (this.ended) return;
    const seat = this.#seatOf(ticket);
    if (seat.released) return;
    seat.released = true;
    for (const { from, to } of seat.wanted.splice(0)) this.#pending -= to - from;
    this.#vacate(seat);
  }

  #seatOf(ticket: Ticket): Seat {
    const seat = ticket as Seat;
    if (!this.#seats.has(seat) && !seat.released)
      throw new Error('this image was admitted by another session');
    return seat;
  }

  #fillSlots(): void {
    if (this.paused) return;
    for (const seat of this.#seats) {
      if (seat.slot !== undefined) continue;
      const slot = this.#free.pop();
      if (slot === undefined) return;
      seat.slot = slot;
      try {
        this.model.encode(slot, seat.pixels);
      } catch (error) {
        this.lose(error);
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

  protected sizeOf(model: Model): number {
    return model.batchSize;
  }

  protected get waiting(): number {
    return this.#pending;
  }

  protected issue(): boolean {
    const pieces = take(this.#seats, this.model.batchSize);
    if (pieces.length === 0) return false;
    const count = pieces.reduce((sum, { from, to }) => sum + to - from, 0);
    this.#pending -= count;
    this.send(pieces, count, this.#run(pieces, count), (errors) => this.#land(pieces, errors));
    return true;
  }

  async #run(pieces: readonly Piece[], count: number): Promise<Float32Array> {
    const { model } = this;
    const errors = await model.errors(toBatch(pieces));
    if (errors.length === count) return errors;
    throw new ModelError(`${model.name}: ${errors.length} errors for ${count} evaluations`);
  }

  #land(pieces: readonly Piece[], errors: Float32Array): void {
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
  }

  #settle({ fan, errors, resolve, reject }: Request): void {
    const bad = errors.findIndex((error) => !Number.isFinite(error));
    if (bad < 0) {
      resolve(errors);
      return;
    }
    const { candidates, levels } = this.model;
    const { t, sigma } = levels[fan.level] ?? {};
    const where = t === undefined ? `sigma ${sigma}` : `t ${t}`;
    const label = candidates[fan.candidates[bad]!]?.label;
    reject(new ItemError('not-finite', `the model's error for "${label}" at ${where} is ${errors[bad]}`));
  }

  protected stepBack(batches: readonly (readonly Piece[])[]): void {
    for (const pieces of [...batches].reverse())
      for (const piece of [...pieces].reverse()) {
        const { seat } = piece.request;
        seat.inFlight = 0;
        if (seat.released) continue;
        seat.wanted.unshift(piece);
        this.#pending += piece.to - piece.from;
      }
    for (const seat of this.#seats) {
      seat.slot = undefined;
      if (seat.released) this.#seats.delete(seat);
    }
  }

  protected resume(model: Model): void {
    this.#free = freeSlots(model);
    this.#fillSlots();
  }

  protected rejectAll(reason: unknown, batches: readonly (readonly Piece[])[]): void {
    for (const pieces of batches) for (const { request } of pieces) request.reject(reason);
    for (const seat of this.#seats) {
      seat.refused(reason);
      for (const { request } of seat.wanted) request.reject(reason);
    }
    this.#seats.clear();
  }
}
