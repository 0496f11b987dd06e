// Checks of options that several commands share.

import { UsageError } from '../../../errors.ts';
import type { Values } from '../options/table.ts';

/** Refuses what cannot be meant together about the grid and the output of any command. */
export function checkShared({
  timesteps,
  sigmas,
  resume,
  output,
}: Values<'timesteps' | 'sigmas' | 'resume' | 'output'>): void {
  if (timesteps && sigmas) throw new UsageError('--timesteps and --sigmas exclude each other');
  if (resume && output === '-')
    throw new UsageError('--resume needs --output FILE, which says what is done already');
}
