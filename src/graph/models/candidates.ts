// What a model chooses between: classes, prompts, or nothing at all; and the network's own number for each.

import { UnsupportedError } from '../../errors.ts';
import { nullLabel } from '../families/edm/edm-family.ts';
import type { EdmFolder, ModelFolder } from './families.ts';
import { type Candidate, NO_CLASS } from '../model.ts';
import type { ModelSummary } from '../model-summary.ts';

/** The network's number for no class; undefined where it has none. */
function nullClass(folder: ModelFolder): number | undefined {
  switch (folder.kind) {
    case 'pixel': {
      const { unet, labels, heads } = folder;
      if (heads !== undefined) return labels.length; // the head behind the classes', or the mean of theirs
      if (unet.classEmbedding === 'none') return 0;
      return unet.numClassEmbeds === labels.length + 1 ? labels.length : undefined;
    }
    case 'transformer':
      return folder.transformer.numEmbedsAdaNorm;
    case 'edm':
      return nullLabel(folder);
    case 'optimal':
      return folder.labels.length;
    case 'text':
      return undefined;
    default:
      return folder satisfies never;
  }
}

/** Why an EDM model has no null class among its classes. */
const withoutNull = ({ uncond }: EdmFolder): string =>
  uncond
    ? 'the network in uncond/ is one of its own, and is opened alone'
    : 'its network was trained with label_dropout 0, and there is no other in uncond/';

/** The part of `OpenModelOptions` that chooses candidates. */
interface CandidateOptions {
  readonly candidates?: (model: ModelSummary) => readonly Candidate[];
  readonly unconditional?: boolean;
}

/**
 * The candidates asked for, or every class of the model, and what each is to the network: a class, or a prompt.
 * @throws UnsupportedError where the model has no such.
 */
export function candidatesOf(
  folder: ModelFolder,
  model: ModelSummary,
  { candidates, unconditional = false }: CandidateOptions,
): { readonly candidates: readonly Candidate[]; readonly labels: readonly number[] } {
  const text = model.conditioning === 'text';
  const nothing: Candidate = { label: '', classidx: NO_CLASS, ...(text ? { prompt: '' } : {}) };
  const found: readonly Candidate[] = unconditional
    ? [nothing]
    : (candidates?.(model) ?? model.labels.map((label, classidx) => ({ label, classidx })));
  if (text) {
    const strange = found.find(({ prompt }) => prompt === undefined);
    if (strange) throw new UnsupportedError(`${model.name}: the candidate ${strange.label} has no prompt`);
    if (found.length === 0)
      throw new UnsupportedError(`${model.name}: chooses between prompts, and was given none`);
    return { candidates: found, labels: found.map((_, i) => i) };
  }
  const none = nullClass(folder);
  const labels = found.map(({ label, classidx }) => {
    if (classidx === NO_CLASS) {
      if (none !== undefined) return none;
      throw new UnsupportedError(
        `${model.name}: has no prediction without a class: ${folder.kind === 'edm' ? withoutNull(folder) : 'a network with a null class has one class embedding more than names of classes'}`,
      );
    }
    if (classidx in model.labels) return classidx;
    const range = model.labels.length > 0 ? `0 to ${model.labels.length - 1}` : 'none';
    throw new UnsupportedError(`${model.name}: ${label} is class ${classidx} of ${range}`);
  });
  return { candidates: found, labels };
}
