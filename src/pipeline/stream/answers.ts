// Passes the answers to a batch on to the jobs that asked.

import { ItemError, ModelError } from '../../errors.ts';
import type { Model } from '../../graph/model.ts';
import { type Answers, type Batch, type Job, rowsOfBatch, type Work } from './jobs.ts';

/** Resolves a job, or rejects it with the reason of a failure. Does nothing if the job is settled already. */
export function settle(job: Job, failure?: { readonly reason: unknown }): void {
  if (job.settled) return;
  job.settled = true;
  if (failure) job.reject(failure.reason);
  else job.resolve();
}

const NO_GRADIENT = new Float32Array(0);

/**
 * Hands out the answers to a batch row by row, in the order of its parts, and settles jobs that have all of theirs. A job
 * with an answer that is NaN or infinity is rejected. Returns the jobs that were rejected: they may have rows that wait.
 *
 * @throws ModelError if the model returned another number of answers than the batch has rows.
 */
export function deliver(model: Model, batch: Batch, { errors, gradients }: Answers): Job[] {
  const count = rowsOfBatch(batch);
  const answers = (errors ?? gradients!).length;
  if (errors ? answers !== count : answers % count !== 0)
    throw new ModelError(`${model.name}: expected ${count} answers (${batch.kind}), got ${answers}`);
  const length = gradients ? gradients.length / count : 0;
  const rejected: Job[] = [];
  let at = 0;
  for (const { job, from, to } of batch.parts) {
    for (let i = from; i < to; i++, at++) {
      if (job.settled) continue;
      const error = errors?.[at] ?? 0;
      const gradient = gradients?.subarray(at * length, (at + 1) * length) ?? NO_GRADIENT;
      if (Number.isFinite(error) && gradient.every(Number.isFinite)) job.onRow(i, error, gradient);
      else {
        settle(job, { reason: notFinite(model, job.work, i, error) });
        rejected.push(job);
      }
    }
    job.answered += to - from;
    if (job.answered === job.count) settle(job);
  }
  return rejected;
}

function notFinite({ name, candidates, levels }: Model, { rows }: Work, i: number, error: number): ItemError {
  const index = typeof rows.level === 'number' ? rows.level : rows.level[i]!;
  const { t, sigma } = levels[index] ?? {};
  const where = t === undefined ? `sigma ${sigma}` : `t ${t}`;
  const candidate =
    'candidate' in rows && typeof rows.candidate !== 'number' ? rows.candidate[i]! : undefined;
  const label = candidate === undefined ? undefined : candidates[candidate]?.label;
  const what = label === undefined ? 'NaN or infinity' : `${error} as the error for "${label}"`;
  return new ItemError('not-finite', `${name}: the model returned ${what} at ${where}`);
}
