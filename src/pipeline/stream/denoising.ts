// A network that is asked for gradients and predictions by many images at once: what they ask for fills its batches,
// and a lost device is replaced under way. No answer depends on who else asks.

import { type Differentiable, type Mix, type Model, NO_CLASS } from '../../graph/model.ts';
import { ModelError, UnsupportedError } from '../../kernels/errors.ts';
import { ItemError } from '../errors.ts';
import type { Denoising, LossGradient } from '../purifying/chain.ts';
import { recoveryFrom } from './recovery.ts';
import type { OpenModel } from './session.ts';

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

/** Batches in flight, so that the device never waits for JavaScript. */
const DEPTH = 2;

/**
 * Opens a model, for its prediction under no class, and begins a session with it.
 *
 * A full batch goes out while fewer than two are in flight; a partial one only when none is and everybody who could
 * ask for more has had a turn of the event loop to do so. What is asked first goes first. A lost device and one out
 * of memory are met as a `Session` meets them.
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
export class DenoisingSession implements Denoising {
  #model: Model;
  #network: Differentiable;
  #free: number[];
  #evaluations = 0;
  readonly #openModel: OpenModel;
  readonly #candidate: number;
  /** In the order in which they were asked. */
  #waiting: Question[] = [];
  readonly #inFlight = new Set<readonly Question[]>();
  #losses = 0;
  #wanted: { readonly batchSize: number } | undefined;
  #reopening = false;
  #turn: NodeJS.Immediate | undefined;
  #ended: { readonly reason: unknown } | undefined;

  constructor(openModel: OpenModel, model: Model) {
    this.#openModel = openModel;
    this.#model = model;
    this.#network = derivativesOf(model);
    this.#candidate = model.candidates.findIndex(({ classidx }) => classidx === NO_CLASS);
    if (this.#candidate < 0)
      throw new UnsupportedError(
        `${model.name}: purifying wants a model opened for no class (unconditional)`,
      );
    this.#free = slotsOf(model);
  }

  /** The model as it is now. */
  get model(): Model {
    return this.#model;
  }

  /** What its levels do to an image. */
  get mixes(): readonly Mix[] {
    return this.#network.mixes;
  }

  /** Evaluations that came back so far, each gradient and each product with the Jacobian one. */
  get evaluations(): number {
    return this.#evaluations;
  }

  /** Images that keep two batches full, each asking for one thing at a time. */
  get concurrency(): number {
    return DEPTH * this.#size;
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

  /** Ends everything that waits, with `reason`, and closes the model. A second call does nothing. */
  close(reason: unknown = new Error('the session is closed')): void {
    if (this.#ended) return;
    this.#ended = { reason };
    clearImmediate(this.#turn);
    for (const batch of this.#inFlight) for (const { reject } of batch) reject(reason);
    for (const { reject } of this.#waiting.splice(0)) reject(reason);
    this.#inFlight.clear();
    if (!this.#reopening) this.#model.close();
  }

  get #size(): number {
    return Math.max(1, Math.min(this.#network.gradientBatchSize, this.#model.slots));
  }

  #ask(question: Omit<Question, 'resolve' | 'reject'>): Promise<LossGradient> {
    const [c, h, w] = this.#model.inputShape;
    return new Promise((resolve, reject) => {
      if (this.#ended) throw this.#ended.reason;
      if (question.x.length !== c * h * w)
        throw new ItemError(
          'wrong-shape',
          `image has ${question.x.length} values, the model wants ${c}x${h}x${w}`,
        );
      this.#waiting.push({ ...question, resolve, reject });
      this.#pump();
    });
  }

  #pump(): void {
    if (this.#reopening || this.#ended) return;
    while (this.#inFlight.size < DEPTH && this.#waiting.length >= this.#size) if (!this.#issue()) break;
    if (this.#inFlight.size > 0 || this.#waiting.length === 0) return;
    this.#turn ??= setImmediate(() => {
      this.#turn = undefined;
      if (this.#reopening || this.#ended || this.#inFlight.size > 0) return;
      if (this.#waiting.length > 0) this.#issue();
    });
  }

  /** Sends the first question and those of its kind that a batch holds beside it; false where no slot is free. */
  #issue(): boolean {
    const kind = this.#waiting[0]!.kind;
    const room = kind === 'gradients' ? Math.min(this.#size, this.#free.length) : this.#size;
    if (room === 0) return false;
    const batch = this.#waiting.filter((question) => question.kind === kind).slice(0, room);
    const taken = new Set(batch);
    this.#waiting = this.#waiting.filter((question) => !taken.has(question));
    this.#inFlight.add(batch);
    const slots = kind === 'gradients' ? this.#free.splice(-batch.length) : [];
    this.#run(kind, batch, slots).then(
      (answers) => this.#land(batch, slots, answers),
      (error: unknown) => {
        if (this.#inFlight.has(batch)) this.#lose(error);
      },
    );
    return true;
  }

  async #run(kind: Kind, batch: readonly Question[], slots: readonly number[]): Promise<LossGradient[]> {
    const level = Uint32Array.from(batch, (question) => question.level);
    const candidate = new Uint32Array(batch.length).fill(this.#candidate);
    if (kind === 'gradients') {
      for (const [i, slot] of slots.entries()) this.#model.encode(slot, batch[i]!.x);
      const noise = Uint32Array.from(batch, (question) => question.noise);
      const slot = Uint32Array.from(slots);
      const { errors, gradients } = await this.#network.gradients({ slot, candidate, level, noise });
      return rowsOf(gradients, batch.length).map((gradient, i) => ({ error: errors[i]!, gradient }));
    }
    const xt = joined(batch.map(({ x }) => x));
    const rows = { xt, candidate, level };
    const answers =
      kind === 'predict'
        ? await this.#network.predict(rows)
        : await this.#network.pullBack({ ...rows, cotangent: joined(batch.map((one) => one.cotangent!)) });
    return rowsOf(answers, batch.length).map((gradient) => ({ error: 0, gradient }));
  }

  #land(batch: readonly Question[], slots: readonly number[], answers: readonly LossGradient[]): void {
    if (!this.#inFlight.delete(batch)) return;
    this.#free.push(...slots);
    this.#evaluations += batch.length;
    this.#losses = 0;
    for (const [i, { resolve, reject, level }] of batch.entries()) {
      const answer = answers[i]!;
      if (Number.isFinite(answer.error) && answer.gradient.every(Number.isFinite)) resolve(answer);
      else reject(new ItemError('not-finite', `${this.#where(level)} the model answers what is no number`));
    }
    this.#pump();
  }

  #where(level: number): string {
    const { t, sigma } = this.#model.levels[level] ?? {};
    return t === undefined ? `at sigma ${sigma}` : `at t ${t}`;
  }

  #lose(error: unknown): void {
    if (this.#reopening || this.#ended) return;
    const recovery = recoveryFrom(error, this.#size, this.#losses);
    if (!recovery) {
      this.close(error);
      return;
    }
    this.#losses = recovery.losses;
    this.#wanted = recovery.wanted ?? this.#wanted;
    this.#reopening = true;
    this.#waiting = [...[...this.#inFlight].flat(), ...this.#waiting];
    this.#inFlight.clear();
    const size = this.#size;
    this.#model.close();
    this.#openModel(this.#wanted).then(
      (model) => this.#resume(model, recovery.wanted ? { error, size } : undefined),
      (failed: unknown) => this.close(failed),
    );
  }

  #resume(model: Model, full: { readonly error: unknown; readonly size: number } | undefined): void {
    if (this.#ended) {
      model.close();
      return;
    }
    const { name, levels } = this.#model;
    this.#reopening = false;
    this.#model = model;
    this.#network = derivativesOf(model);
    this.#free = slotsOf(model);
    if (model.levels.length !== levels.length)
      this.close(new ModelError(`${name}: opened again with other levels`));
    if (full && this.#size >= full.size) this.close(full.error);
    this.#pump();
  }
}

/** @throws UnsupportedError for a model without gradients. */
export function derivativesOf({ name, differentiable }: Model): Differentiable {
  if (differentiable) return differentiable;
  throw new UnsupportedError(
    `${name}: purifying needs gradients with regard to pixels, which a model of latents has not`,
  );
}

const slotsOf = ({ slots }: Model): number[] => Array.from({ length: slots }, (_, i) => slots - 1 - i);

function joined(rows: readonly Float32Array[]): Float32Array {
  const whole = new Float32Array(rows.length * (rows[0]?.length ?? 0));
  for (const [i, row] of rows.entries()) whole.set(row, i * row.length);
  return whole;
}

function rowsOf(values: Float32Array, count: number): Float32Array[] {
  const length = values.length / count;
  return Array.from({ length: count }, (_, i) => values.slice(i * length, (i + 1) * length));
}
