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

/** Sums of errors of one image: of the candidates `among`, with the weights that `weights` gives for the i-th view. */
export interface AskingSums {
  readonly level: ArrayLike<number>;
  readonly noise: ArrayLike<number>;
  readonly among: readonly number[];
  readonly weights: (i: number) => readonly number[];
}

/** An image in a slot of the model. */
export interface Seated {
  errors(asking: Asking, onRow: OnRow): Promise<void>;
  gradients(asking: Asking, onRow: OnRow): Promise<void>;
  /** Gradients of weighted sums of errors, a view each; undefined where the model gains nothing by it. */
  readonly sums?: (asking: AskingSums, onRow: (i: number, gradient: Float32Array) => void) => Promise<void>;
}

/** A model whose slots and batches several images share. */
export interface Evaluations {
  /** Puts an image [c, h, w] in [-1, 1] into a slot for as long as `use` runs; waits where none is free. */
  seat<T>(x: Float32Array, use: (seated: Seated) => Promise<T>): Promise<T>;
}

/** Batches in flight, so that the device never waits for JavaScript. */
const DEPTH = 2;

type Kind = 'errors' | 'gradients' | 'sums';

/** What a request asks, each with its own rows: evaluations, or views of which sums of errors are taken. */
type Asked =
  | { readonly kind: 'errors' | 'gradients'; readonly asking: Asking; readonly onRow: OnRow }
  | {
      readonly kind: 'sums';
      readonly asking: AskingSums;
      readonly onRow: (i: number, gradient: Float32Array) => void;
    };

type Request = Asked & {
  readonly slot: number;
  issued: number;
  landed: number;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
};

/** What a batch came back with, by row. */
interface Landed {
  readonly errors?: Float32Array;
  readonly gradients?: Float32Array;
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

  /** Rows of a batch. */
  const largest = (kind: Kind): number => {
    if (kind === 'errors') return model.batchSize;
    const { gradientBatchSize, viewBatchSize } = differentiable();
    return kind === 'gradients' ? gradientBatchSize : viewBatchSize!;
  };

  /** The first request and what others of its kind have left, up to a batch. */
  const take = (): Piece[] => {
    const { kind } = waiting[0]!;
    let room = largest(kind);
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

  const run = async (kind: Kind, pieces: readonly Piece[]): Promise<Landed> => {
    const each = <T>(of: (request: Request, i: number) => T): T[] =>
      pieces.flatMap(({ request, from, to }) =>
        Array.from({ length: to - from }, (_, i) => of(request, from + i)),
      );
    const views = {
      slot: Uint32Array.from(each(({ slot }) => slot)),
      level: Uint32Array.from(each(({ asking }, i) => asking.level[i]!)),
      noise: Uint32Array.from(each(({ asking }, i) => asking.noise[i]!)),
    };
    if (kind !== 'sums') {
      const candidate = Uint32Array.from(
        each(({ asking }, i) => ('candidate' in asking ? asking.candidate[i]! : 0)),
      );
      const batch = { ...views, candidate };
      return kind === 'errors' ? { errors: await model.errors(batch) } : differentiable().gradients(batch);
    }
    const parts = each(({ asking }, i) =>
      'among' in asking
        ? asking.among.map((candidate, k) => [candidate, asking.weights(i)[k]!] as const)
        : [],
    );
    const weighted = {
      view: Uint32Array.from(parts.flatMap((part, view) => part.map(() => view))),
      candidate: Uint32Array.from(parts.flatMap((part) => part.map(([candidate]) => candidate))),
      weight: Float32Array.from(parts.flatMap((part) => part.map(([, weight]) => weight))),
    };
    return { gradients: await differentiable().viewGradients!(views, weighted) };
  };

  const issue = () => {
    const { kind } = waiting[0]!;
    const pieces = take();
    inFlight++;
    const result = run(kind, pieces);
    // Rows are told in the order of the batches, whichever comes back first.
    const before = landing;
    landing = result.then(
      async (landed) => {
        inFlight--;
        pump();
        await before;
        land(pieces, landed);
      },
      async (error: unknown) => {
        inFlight--;
        await before;
        fail(error);
      },
    );
  };

  const land = (pieces: readonly Piece[], { errors, gradients }: Landed) => {
    const length = gradients
      ? gradients.length / pieces.reduce((sum, { from, to }) => sum + to - from, 0)
      : 0;
    let at = 0;
    for (const { request, from, to } of pieces) {
      for (let i = from; i < to; i++, at++) {
        const error = errors?.[at] ?? 0;
        const gradient = gradients?.subarray(at * length, (at + 1) * length);
        if (request.kind === 'sums' && gradient!.every(Number.isFinite)) request.onRow(i, gradient!);
        else if (request.kind !== 'sums' && Number.isFinite(error)) request.onRow(i, error, gradient);
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
      const size = largest(kind);
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

  const ask = (slot: number, asked: Asked): Promise<void> =>
    new Promise((resolve, reject) => {
      if (asked.kind !== 'errors') differentiable();
      if (asked.asking.level.length === 0) {
        resolve();
        return;
      }
      const request = { ...asked, slot, issued: 0, landed: 0, resolve, reject };
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
          errors: (asking, onRow) => ask(slot, { kind: 'errors', asking, onRow }),
          gradients: (asking, onRow) => ask(slot, { kind: 'gradients', asking, onRow }),
          ...(model.differentiable?.viewGradients && {
            sums: (asking: AskingSums, onRow: (i: number, gradient: Float32Array) => void) =>
              ask(slot, { kind: 'sums', asking, onRow }),
          }),
        });
      } finally {
        const next = forSlot.shift();
        if (next) next(slot);
        else free.push(slot);
      }
    },
  };
}
