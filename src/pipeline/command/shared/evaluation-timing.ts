// Times evaluations, for the dry runs of all commands that classify.

import type { EvaluationBatch, Model } from '../../../graph/model.ts';
import { DEPTH } from '../../stream/batcher.ts';
import { type Timing, timeWork } from './timing.ts';

/**
 * Times batches of a model as a run would fill them, as many at the same time as the run has: `inFlight` images ask for
 * `atOnce` evaluations each. An image is evaluated for `among` candidates at each level; by default for all candidates.
 */
export function timeEvaluations(
  model: Model,
  inFlight: number,
  atOnce: number,
  among = model.candidates.length,
): Promise<Timing> {
  const [c, h, w] = model.inputShape;
  model.encode(0, new Float32Array(c * h * w));
  const asked = Math.max(1, inFlight * atOnce);
  return timeWork({
    run: (count) => model.errors(batchOf(model, count, among)),
    fill: Math.min(model.batchSize, asked),
    depth: asked >= DEPTH * model.batchSize ? DEPTH : 1,
  });
}

/** Makes a batch of the first evaluations of an image in slot 0: `among` candidates at each level in turn. */
function batchOf({ levels }: Model, length: number, among: number): EvaluationBatch {
  const from = (value: (i: number) => number) => Uint32Array.from({ length }, (_, i) => value(i));
  const level = (i: number) => Math.floor(i / among) % levels.length;
  return {
    slot: new Uint32Array(length),
    candidate: from((i) => i % among),
    level: from(level),
    noise: from(level),
  };
}
