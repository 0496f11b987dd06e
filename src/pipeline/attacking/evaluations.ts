// Errors and gradients of a model, asked for by several images at once: what they ask fills common batches, and no
// answer depends on who else asks.

import type { Model } from '../../graph/model.ts';
import { ItemError } from '../errors.ts';

/** Evaluations of one image: index arrays of equal length. */
export interface Asking {
  readonly candidate: ArrayLike<number>;
  readonly level: ArrayLike<number>;
  readonly noise: ArrayLike<number>;
}

/** Told of every evaluation, in the order in which they were asked; `gradient` [c, h, w] is only lent. */
export type OnRow = (i: number, error: number, gradient: Float32Array | undefined) => void;

/** An image in a slot of the model. */
export interface Seated {
  errors(asking: Asking, onRow: OnRow): Promise<void>;
  gradients(asking: Asking, onRow: OnRow): Promise<void>;
}

/** A model whose slots and batches several images share. */
export interface Evaluations {
  /** Puts an image [c, h, w] in [-1, 1] into a slot for as long as `use` runs; waits where none is free. */
  seat<T>(x: Float32Array, use: (seated: Seated) => Promise<T>): Promise<T>;
}

/** Batches in flight, so that the device never waits for JavaScript. */
const DEPTH = 2;

type Kind = 'errors' | 'gradients';

interface Request {
  readonly kind: Kind;
  readonly slot: number;
  readonly asking: Asking;
  readonly onRow: OnRow;
  issued: number;
  landed: number;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

interface Piece {
  readonly request: Request;
  readonly from: number;
  readonly to: number;
}

/** Shares a model. It stays the caller's: an error of it rejects what waits, and closing it is not done here. */
export function shareModel(model: Model): Evaluations {
  const free = Array.from({ length: model.slots }, (_, i) => model.slots - 1 - i);
  const forSlot: ((slot: number) => void)[] = [];
  /** Requests that have not ended, and those of them of which something is still to be issued. */
  const open = new Set<Request>();
  let waiting: Request[] = [];
  let inFlight = 0;
  let turnTaken = true;
  let landing: Promise<void> = Promise.resolve();
  const differentiable = () => {
    if (model.differentiable) return model.differentiable;
    throw new RangeError(`${model.name} has no gradients`);
  };

  /** The first request and what others of its kind have left, up to a batch. */
  const take = (): Piece[] => {
    const { kind } = waiting[0]!;
    let room = kind === 'errors' ? model.batchSize : differentiable().gradientBatchSize;
    const pieces: Piece[] = [];
    for (const request of waiting) {
      if (room === 0) break;
      if (request.kind !== kind) continue;
      const to = Math.min(request.asking.level.length, request.issued + room);
      pieces.push({ request, from: request.issued, to });
      room -= to - request.issued;
      request.issued = to;
    }
    waiting = waiting.filter(({ issued, asking }) => issued < asking.level.length);
    return pieces;
  };

  const issue = () => {
    const { kind } = waiting[0]!;
    const pieces = take();
    const column = (of: (request: Request, i: number) => number) =>
      Uint32Array.from(
        pieces.flatMap(({ request, from, to }) =>
          Array.from({ length: to - from }, (_, i) => of(request, from + i)),
        ),
      );
    const batch = {
      slot: column(({ slot }) => slot),
      candidate: column(({ asking }, i) => asking.candidate[i]!),
      level: column(({ asking }, i) => asking.level[i]!),
      noise: column(({ asking }, i) => asking.noise[i]!),
    };
    inFlight++;
    const result =
      kind === 'errors'
        ? model.errors(batch).then((errors) => ({ errors, gradients: undefined }))
        : differentiable().gradients(batch);
    // Rows are told in the order of the batches, whichever comes back first.
    const before = landing;
    landing = result.then(
      async ({ errors, gradients }) => {
        inFlight--;
        pump();
        await before;
        land(pieces, errors, gradients);
      },
      async (error: unknown) => {
        inFlight--;
        await before;
        fail(error);
      },
    );
  };

  const land = (pieces: readonly Piece[], errors: Float32Array, gradients: Float32Array | undefined) => {
    const length = gradients ? gradients.length / errors.length : 0;
    let at = 0;
    for (const { request, from, to } of pieces) {
      for (let i = from; i < to; i++, at++) {
        const error = errors[at]!;
        const gradient = gradients?.subarray(at * length, (at + 1) * length);
        if (Number.isFinite(error)) request.onRow(i, error, gradient);
        else request.reject(new ItemError('not-finite', `${model.name} answers what is no number`));
      }
      request.landed += to - from;
      if (request.landed < request.asking.level.length) continue;
      open.delete(request);
      request.resolve();
    }
  };

  const fail = (error: unknown) => {
    for (const request of open) request.reject(error);
    open.clear();
    waiting = [];
  };

  /** Full batches go at once, a partial one when nothing is in flight and all have had their turn to ask. */
  const pump = () => {
    const full = () => {
      const { kind } = waiting[0]!;
      const size = kind === 'errors' ? model.batchSize : differentiable().gradientBatchSize;
      let count = 0;
      for (const request of waiting)
        if (request.kind === kind) count += request.asking.level.length - request.issued;
      return count >= size;
    };
    while (inFlight < DEPTH && waiting.length > 0 && full()) issue();
    if (inFlight > 0 || waiting.length === 0) return;
    if (!turnTaken) return;
    turnTaken = false;
    setImmediate(() => {
      turnTaken = true;
      if (inFlight === 0 && waiting.length > 0) {
        issue();
        pump();
      }
    });
  };

  const ask = (kind: Kind, slot: number, asking: Asking, onRow: OnRow): Promise<void> =>
    new Promise((resolve, reject) => {
      if (kind === 'gradients') differentiable();
      if (asking.level.length === 0) {
        resolve();
        return;
      }
      const request = { kind, slot, asking, onRow, issued: 0, landed: 0, resolve, reject };
      open.add(request);
      waiting.push(request);
      pump();
    });

  return {
    async seat(x, use) {
      const slot = free.pop() ?? (await new Promise<number>((resolve) => forSlot.push(resolve)));
      try {
        model.encode(slot, x);
        return await use({
          errors: (asking, onRow) => ask('errors', slot, asking, onRow),
          gradients: (asking, onRow) => ask('gradients', slot, asking, onRow),
        });
      } finally {
        const next = forSlot.shift();
        if (next) next(slot);
        else free.push(slot);
      }
    },
  };
}
