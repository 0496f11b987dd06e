// What a model chooses between: classes, prompts, or nothing at all; and the network's own number for each.

import { UnsupportedError } from '../../errors.ts';
import type { Choices } from '../families/family.ts';
import { type Candidate, NO_CLASS } from '../model.ts';
import type { ModelSummary } from '../model-summary.ts';

/** The part of `OpenModelOptions` that chooses candidates. */
interface CandidateOptions {
  readonly candidates?: (model: ModelSummary) => readonly Candidate[];
  readonly unconditional?: boolean;
}

/**
 * Returns the candidates that the options choose, by default every class of the model, and the network's number for each: of
 * a class, or of a prompt.
 * @throws UnsupportedError if the model has no such candidate.
 */
export function candidatesOf(
  { nullClass, whyNoNullClass }: Choices,
  model: ModelSummary,
  { candidates, unconditional = false }: CandidateOptions,
): { readonly candidates: readonly Candidate[]; readonly labels: readonly number[] } {
  const text = model.conditioning === 'text';
  const nothing: Candidate = { label: '', classidx: NO_CLASS, ...(text ? { prompt: '' } : {}) };
  const found: readonly Candidate[] = unconditional
    ? [nothing]
    : (candidates?.(model) ?? model.labels.map((label, classidx) => ({ label, classidx })));
  if (text) {
    const bare = found.find(({ prompt }) => prompt === undefined);
    if (bare) throw new UnsupportedError(`${model.name}: the candidate ${bare.label} has no prompt`);
    if (found.length === 0)
      throw new UnsupportedError(`${model.name}: it chooses between prompts, but none are given`);
    return { candidates: found, labels: found.map((_, i) => i) };
  }
  const labels = found.map(({ label, classidx }) => {
    if (classidx === NO_CLASS) {
      if (nullClass !== undefined) return nullClass;
      throw new UnsupportedError(`${model.name}: it has no prediction without a class: ${whyNoNullClass}`);
    }
    if (classidx in model.labels) return classidx;
    const range = model.labels.length > 0 ? `0 to ${model.labels.length - 1}` : 'none';
    throw new UnsupportedError(`${model.name}: expected classes ${range}, got ${classidx} (${label})`);
  });
  return { candidates: found, labels };
}
