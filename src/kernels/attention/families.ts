// How attention kernels differ between the kernel families.

import type { Capabilities } from '../device/device.ts';
import type { Family } from '../device/families.ts';
import type { Routine } from '../device/routine.ts';
import { fusedPlain, fusedSubgroup } from './attention-fused.ts';
import type { AttentionOptions } from './attention-options.ts';

interface AttentionVariant {
  /** Returns the routine for small heads; its operands are q, k, v and y. */
  readonly fused: (capabilities: Capabilities, options: AttentionOptions) => Routine;
  /** Invocations that share four rows of scores in the gradient. */
  readonly scoreMembers: number;
}

export const ATTENTIONS: Readonly<Record<Family, AttentionVariant>> = {
  subgroup: { fused: fusedSubgroup, scoreMembers: 1 },
  plain: { fused: (_, options) => fusedPlain(options), scoreMembers: 1 },
  tile: { fused: (_, options) => fusedPlain(options), scoreMembers: 16 },
};
