// What is requested of a model, and how the requests of several images become one batch.

import { UnsupportedError } from '../../errors.ts';
import type { Differentiable, EvaluationBatch, ImageGeometry, Model, Views } from '../../graph/model.ts';
import { joined } from '../../kernels/device/tensor.ts';
import { sum } from '../../numbers.ts';

/** An image's right to a slot of the model. The slot is undefined while the image waits for one, as after a lost device. */
export interface Lease {
  readonly image: Float32Array;
  readonly geometry: ImageGeometry | undefined;
  /** The seed of its noise. Default: the model's own. */
  readonly seed: bigint | undefined;
  slot: number | undefined;
  /** Number of rows that were sent and are not answered yet. */
  inFlight: number;
  released: boolean;
}

/** An image that waits for a slot. */
export interface LeaseRequest {
  readonly lease: Lease;
  /** Called when the image gets a slot. */
  readonly grant: () => void;
  readonly reject: (reason: unknown) => void;
}

/** A stream, or all single calls of a classifier together. Slots and batches are shared fairly between users. */
export interface User {
  /** Number of slots that its images have. */
  slots: number;
  /** Images that wait for a slot. */
  readonly requests: Set<LeaseRequest>;
  /** Rows that wait to be sent, in their order. */
  readonly parts: Map<Kind, BatchPart[]>;
}

/** Evaluations of one image: index arrays of equal length. */
export interface Evaluations {
  readonly candidate: ArrayLike<number>;
  readonly level: ArrayLike<number>;
  readonly noise: ArrayLike<number>;
}

/** Weighted sums of errors of one image, one sum per view (level, noise); `weights` of view i, one per candidate. */
export interface ErrorSums {
  readonly level: ArrayLike<number>;
  readonly noise: ArrayLike<number>;
  readonly candidates: readonly number[];
  readonly weights: (i: number) => readonly number[];
}

/** A noised image [c, h, w] for the network alone, and the `cotangent` that its Jacobian is multiplied by, if any. */
export interface NetworkInput {
  readonly xt: Float32Array;
  readonly candidate: number;
  readonly level: number;
  readonly cotangent?: Float32Array;
}

/**
 * A request, by the function of the model that answers it:
 * - `errors` and `gradients`: `Model.errors` and `Differentiable.gradients` of evaluations;
 * - `sums`: `Differentiable.viewGradients`, one row per view;
 * - `predict` and `pullBack`: the network alone, one row.
 */
export type Work =
  | { readonly kind: 'errors' | 'gradients'; readonly lease: Lease; readonly rows: Evaluations }
  | { readonly kind: 'sums'; readonly lease: Lease; readonly rows: ErrorSums }
  | { readonly kind: 'predict' | 'pullBack'; readonly lease?: undefined; readonly rows: NetworkInput };

/** The kinds of requests. A batch has one kind. */
export type Kind = Work['kind'];

/** Receives the answer to row `i` of a job. `gradient` [c, h, w] is valid during the call, and empty for `errors`. */
export type OnRow = (i: number, error: number, gradient: Float32Array) => void;

/** Work that was requested. Its rows are sent in order, in as many batches as it takes, and are answered in order. */
export interface Job {
  readonly user: User;
  readonly work: Work;
  readonly count: number;
  readonly onRow: OnRow;
  /** Number of rows answered so far. */
  answered: number;
  /** Whether it is resolved or rejected. Later answers are dropped. */
  settled: boolean;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

/** Rows [from, to) of a job. */
export interface BatchPart {
  readonly job: Job;
  readonly from: number;
  readonly to: number;
}

/** Parts of one kind that are sent to the model together. */
export interface Batch {
  readonly kind: Kind;
  readonly parts: readonly BatchPart[];
}

/** The answers to a batch, row by row; gradients [c, h, w] one after the other. */
export interface Answers {
  readonly errors?: Float32Array;
  readonly gradients?: Float32Array;
}

/** Returns the derivatives of a model. Throws `UnsupportedError` if it has none, as models of latents. */
export function derivativesOf({ name, differentiable }: Model): Differentiable {
  if (differentiable) return differentiable;
  throw new UnsupportedError(
    `${name}: purification and attacks need gradients with respect to pixels, which a model of latents does not have`,
  );
}

/** Returns the number of rows in a full batch of a kind. Throws `UnsupportedError` if the model cannot answer the kind. */
export function batchSizeOf(model: Model, kind: Kind): number {
  if (kind === 'errors') return model.batchSize;
  const { gradientBatchSize, viewBatchSize = gradientBatchSize } = derivativesOf(model);
  return kind === 'sums' ? viewBatchSize : gradientBatchSize;
}

/** Returns the number of rows of some work. */
export const rowsOf = ({ lease, rows }: Work): number => (lease ? rows.level.length : 1);

/** Returns the number of rows of a batch. */
export const rowsOfBatch = ({ parts }: Pick<Batch, 'parts'>): number =>
  sum(parts.map(({ from, to }) => to - from));

/** Runs a batch, whose images are in slots, and returns the answers in order. */
export async function runBatch(model: Model, { kind, parts }: Batch): Promise<Answers> {
  switch (kind) {
    case 'errors':
      return { errors: await model.errors(evaluationBatch(model, parts)) };
    case 'gradients':
      return derivativesOf(model).gradients(evaluationBatch(model, parts));
    case 'sums':
      return { gradients: await viewGradients(model, parts) };
    case 'predict':
    case 'pullBack':
      return { gradients: await networkAlone(model, kind, parts) };
    default:
      return kind satisfies never;
  }
}

/** Returns one value per row of a batch. */
function eachRow<T>(parts: readonly BatchPart[], of: (work: Work, i: number) => T): T[] {
  const values: T[] = [];
  for (const { job, from, to } of parts) for (let i = from; i < to; i++) values.push(of(job.work, i));
  return values;
}

/** Returns slots, levels, noise indices and, if any image has its own, seeds of a batch. */
function viewBatch(model: Model, parts: readonly BatchPart[]): Views {
  const count = rowsOfBatch({ parts });
  const [slot, level, noise] = [new Uint32Array(count), new Uint32Array(count), new Uint32Array(count)];
  const seeded = parts.some(({ job }) => job.work.lease?.seed !== undefined);
  const seed = seeded ? new BigUint64Array(count) : undefined;
  let at = 0;
  for (const { job, from, to } of parts) {
    const { lease, rows } = job.work as Extract<Work, { readonly lease: Lease }>;
    slot.fill(lease.slot!, at, at + to - from);
    seed?.fill(lease.seed ?? model.seed ?? 0n, at, at + to - from);
    for (let i = from; i < to; i++, at++) {
      level[at] = rows.level[i]!;
      noise[at] = rows.noise[i]!;
    }
  }
  return { slot, level, noise, ...(seed && { seed }) };
}

function evaluationBatch(model: Model, parts: readonly BatchPart[]): EvaluationBatch {
  const candidate = new Uint32Array(rowsOfBatch({ parts }));
  let at = 0;
  for (const { job, from, to } of parts) {
    const { candidate: own } = job.work.rows as Evaluations;
    for (let i = from; i < to; i++) candidate[at++] = own[i]!;
  }
  return { ...viewBatch(model, parts), candidate };
}

function viewGradients(model: Model, parts: readonly BatchPart[]): Promise<Float32Array> {
  const sums = eachRow(parts, ({ rows }, i) => {
    const { candidates, weights } = rows as ErrorSums;
    return { candidates, weights: weights(i) };
  });
  const weighted = {
    view: Uint32Array.from(sums.flatMap(({ candidates }, view) => candidates.map(() => view))),
    candidate: Uint32Array.from(sums.flatMap(({ candidates }) => candidates)),
    weight: Float32Array.from(sums.flatMap(({ weights }) => weights)),
  };
  return derivativesOf(model).viewGradients!(viewBatch(model, parts), weighted);
}

function networkAlone(
  model: Model,
  kind: 'predict' | 'pullBack',
  parts: readonly BatchPart[],
): Promise<Float32Array> {
  const rows = parts.map(({ job }) => job.work.rows as NetworkInput);
  const batch = {
    xt: joined(rows.map(({ xt }) => xt)),
    candidate: Uint32Array.from(rows, ({ candidate }) => candidate),
    level: Uint32Array.from(rows, ({ level }) => level),
  };
  if (kind === 'predict') return derivativesOf(model).predict(batch);
  return derivativesOf(model).pullBack({ ...batch, cotangent: joined(rows.map((row) => row.cotangent!)) });
}
