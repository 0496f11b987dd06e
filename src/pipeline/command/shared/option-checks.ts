// Checks of options that several commands share.

import { UsageError } from '../../../errors.ts';
import type { Values } from '../options/table.ts';

/** @throws UsageError if the noise levels are given twice. */
export function checkGrid({ timesteps, sigmas }: Values<'timesteps' | 'sigmas'>): void {
  if (timesteps && sigmas) throw new UsageError('--timesteps and --sigmas exclude each other');
}

/** @throws UsageError if the candidates are given twice, or a template is given without labels to fill in. */
export function checkCandidates({
  prompts,
  labels,
  template,
}: Values<'prompts' | 'labels' | 'template'>): void {
  if (prompts && labels) throw new UsageError('--prompts and --labels exclude each other');
  if (template && !labels) throw new UsageError('--template needs --labels to fill in');
}

/** @throws UsageError if there is no file that could be resumed. */
export function checkResume({ resume, output }: Values<'resume' | 'output'>): void {
  if (resume && output === '-')
    throw new UsageError('--resume needs --output FILE, which holds the earlier results');
}
