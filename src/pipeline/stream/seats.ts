// How evaluations of several images come together in one batch.

import type { EvaluationBatch } from '../../graph/model.ts';
import type { Fan } from '../deciding/trial.ts';

/** An image that has a slot, or waits for one. */
export interface Seat {
  readonly pixels: Float32Array;
  slot: number | undefined;
  readonly seated: (seat: Seat) => void;
  readonly refused: (reason: unknown) => void;
  /** What is asked for and not issued yet, in order. */
  readonly wanted: Piece[];
  /** Evaluations issued and not back yet. */
  inFlight: number;
  released: boolean;
}

/** A fan that was asked for, with the errors that are back. */
export interface Request {
  readonly seat: Seat;
  readonly fan: Fan;
  readonly errors: Float32Array;
  missing: number;
  readonly resolve: (errors: Float32Array) => void;
  readonly reject: (reason: unknown) => void;
}

/** The evaluations [from, to) of a request. */
export interface Piece {
  readonly request: Request;
  readonly from: number;
  readonly to: number;
}

/** Takes up to `count` evaluations off what seats with a slot want, in the order of the seats. */
export function take(seats: Iterable<Seat>, count: number): Piece[] {
  const taken: Piece[] = [];
  let room = count;
  for (const seat of seats) {
    if (seat.slot === undefined) continue;
    for (let piece = seat.wanted[0]; piece !== undefined && room > 0; piece = seat.wanted[0]) {
      const to = Math.min(piece.to, piece.from + room);
      taken.push({ ...piece, to });
      if (to === piece.to) seat.wanted.shift();
      else seat.wanted[0] = { ...piece, from: to };
      seat.inFlight += to - piece.from;
      room -= to - piece.from;
    }
    if (room === 0) break;
  }
  return taken;
}

/** The index arrays of a batch. */
export function toBatch(pieces: readonly Piece[]): EvaluationBatch {
  const length = pieces.reduce((sum, { from, to }) => sum + to - from, 0);
  const slot = new Uint32Array(length);
  const candidate = new Uint32Array(length);
  const level = new Uint32Array(length);
  const noise = new Uint32Array(length);
  let at = 0;
  for (const { request, from, to } of pieces)
    for (let i = from; i < to; i++, at++) {
      slot[at] = request.seat.slot!;
      candidate[at] = request.fan.candidates[i]!;
      level[at] = request.fan.level;
      noise[at] = request.fan.noise;
    }
  return { slot, candidate, level, noise };
}
