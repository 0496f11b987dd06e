// A network that is asked for gradients and predictions by many images at once: what they ask for fills its batches,
// and a lost device is replaced under way. No answer depends on who else asks.

import { type Differentiable, type Mix, type Model, NO_CLASS } from '../../graph/model.ts';
import { UnsupportedError } from '../../kernels/errors.ts';
import { ItemError } from '../errors.ts';
import type { Denoising, LossGradient } from '../purifying/chain.ts';
import { BatchesInFlight, DEPTH, freeSlots, type OpenModel } from './batches.ts';

type Kind = 'gradients' | 'predict' | 'pullBack';

/** What an image asks for: one row of a batch. */
interface Question {
  readonly kind: Kind;
  /** The image, or the noised image, [c, h, w]. */
  readonly x: Float32Array;
  readonly level: number;
  readonly noise: number;
  readonly cotangent?: Float32Array;
  readonly resolve: (answer: LossGradient) => void;
  readonly reject: (reason: unknown) => void;
}

/**
 * Opens a model, for its prediction under no class, and begins a session with it.
 *
 * What is asked first goes first; when batches go out, and how a lost device is met, `BatchesInFlight` says.
 *
 * @throws UnsupportedError for a model without gradients (of latents), or without a candidate for no class.
 */
export async function openDenoisingSession(openModel: OpenModel): Promise<DenoisingSession> {
  const model = await openModel();
  try {
    return new DenoisingSession(openModel, model);
  } catch (error) {
    model.close();
    throw error;
  }
}

/** Questions in flight. Owns the model. */
export class DenoisingSession extends BatchesInFlight<readonly Question[]> implements Denoising {
  #free: number[];
  readonly #candidate: number;
  /** In the order in which they were asked. */
  #asked: Question[] = [];

  constructor(openModel: OpenModel, model: Model) {
    super(openModel, model);
    derivativesOf(model);
    this.#candidate = model.candidates.findIndex(({ classidx }) => classidx === NO_CLASS);
    if (this.#candidate < 0)
      throw new UnsupportedError(
        `${model.name}: purifying wants a model opened for no class (unconditional)`,
      );
    this.#free = freeSlots(model);
  }

  /** What its levels do to an image. */
  get mixes(): readonly Mix[] {
    return derivativesOf(this.model).mixes;
  }

  /** Images that keep two batches full, each asking for one thing at a time. */
  get concurrency(): number {
    return DEPTH * this.sizeOf(this.model);
  }

  lossGradient(x: Float32Array, level: number, noise: number): Promise<LossGradient> {
    return this.#ask({ kind: 'gradients', x, level, noise });
  }

  async predict(xt: Float32Array, level: number): Promise<Float32Array> {
    return (await this.#ask({ kind: 'predict', x: xt, level, noise: 0 })).gradient;
  }

  async pullBack(xt: Float32Array, level: number, v: Float32Array): Promise<Float32Array> {
    return (await this.#ask({ kind: 'pullBack', x: xt, level, noise: 0, cotangent: v })).gradient;
  }

  #ask(question: Omit<Question, 'resolve' | 'reject'>): Promise<LossGradient> {
    return new Promise((resolve, reject) => {
      this.check(question.x);
      this.#asked.push({ ...question, resolve, reject });
      this.pump();
    });
  }

  protected sizeOf(model: Model): number {
    return Math.max(1, Math.min(derivativesOf(model).gradientBatchSize, model.slots));
  }

  protected get waiting(): number {
    return this.#asked.length;
  }

  /** Sends the first question and those of its kind that a batch holds beside it; false where no slot is free. */
  protected issue(): boolean {
    const kind = this.#asked[0]!.kind;
    const size = this.sizeOf(this.model);
    const room = kind === 'gradients' ? Math.min(size, this.#free.length) : size;
    if (room === 0) return false;
    const batch = this.#asked.filter((question) => question.kind === kind).slice(0, room);
    const taken = new Set(batch);
    this.#asked = this.#asked.filter((question) => !taken.has(question));
    const slots = kind === 'gradients' ? this.#free.splice(-batch.length) : [];
    const answers = this.#run(kind, batch, slots);
    this.send(batch, batch.length, answers, (found) => this.#land(batch, slots, found));
    return true;
  }

  async #run(kind: Kind, batch: readonly Question[], slots: readonly number[]): Promise<LossGradient[]> {
    const level = Uint32Array.from(batch, (question) => question.level);
    const candidate = new Uint32Array(batch.length).fill(this.#candidate);
    const network = derivativesOf(this.model);
    if (kind === 'gradients') {
      for (const [i, slot] of slots.entries()) this.model.encode(slot, batch[i]!.x);
      const noise = Uint32Array.from(batch, (question) => question.noise);
      const slot = Uint32Array.from(slots);
      const { errors, gradients } = await network.gradients({ slot, candidate, level, noise });
      return rowsOf(gradients, batch.length).map((gradient, i) => ({ error: errors[i]!, gradient }));
    }
    const xt = joined(batch.map(({ x }) => x));
    const rows = { xt, candidate, level };
    const answers =
      kind === 'predict'
        ? await network.predict(rows)
        : await network.pullBack({ ...rows, cotangent: joined(batch.map((one) => one.cotangent!)) });
    return rowsOf(answers, batch.length).map((gradient) => ({ error: 0, gradient }));
  }

  #land(batch: readonly Question[], slots: readonly number[], answers: readonly LossGradient[]): void {
    this.#free.push(...slots);
    for (const [i, { resolve, reject, level }] of batch.entries()) {
      const answer = answers[i]!;
      if (Number.isFinite(answer.error) && answer.gradient.every(Number.isFinite)) resolve(answer);
      else reject(new ItemError('not-finite', `${this.#where(level)} the model answers what is no number`));
    }
  }

  #where(level: number): string {
    const { t, sigma } = this.model.levels[level] ?? {};
    return t === undefined ? `at sigma ${sigma}` : `at t ${t}`;
  }

  protected stepBack(batches: readonly (readonly Question[])[]): void {
    this.#asked = [...batches.flat(), ...this.#asked];
  }

  protected resume(model: Model): void {
    this.#free = freeSlots(model);
  }

  protected rejectAll(reason: unknown, batches: readonly (readonly Question[])[]): void {
    for (const { reject } of [...batches.flat(), ...this.#asked.splice(0)]) reject(reason);
  }
}

/** @throws UnsupportedError for a model without gradients. */
export function derivativesOf({ name, differentiable }: Model): Differentiable {
  if (differentiable) return differentiable;
  throw new UnsupportedError(
    `${name}: purifying needs gradients with regard to pixels, which a model of latents has not`,
  );
}

function joined(rows: readonly Float32Array[]): Float32Array {
  const whole = new Float32Array(rows.length * (rows[0]?.length ?? 0));
  for (const [i, row] of rows.entries()) whole.set(row, i * row.length);
  return whole;
}

function rowsOf(values: Float32Array, count: number): Float32Array[] {
  const length = values.length / count;
  return Array.from({ length: count }, (_, i) => values.slice(i * length, (i + 1) * length));
}
