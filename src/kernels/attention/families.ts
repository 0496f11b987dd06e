// How attention kernels differ between the kernel families.

import type { Capabilities } from '../device/device.ts';
import type { Family } from '../device/families.ts';
import type { Routine } from '../device/routine.ts';
import { fusedPlain, fusedSubgroup, LARGEST_FUSED_HEAD } from './attention-fused.ts';
import { attentionMatrix } from './attention-matrix.ts';
import type { AttentionOptions } from './attention-options.ts';

interface AttentionVariant {
  /** The most channels of a head for which one kernel computes everything. */
  readonly fusedUpTo: number;
  /** Returns the routine for such heads; its operands are q, k, v and y. */
  readonly fused: (capabilities: Capabilities, options: AttentionOptions) => Routine;
  /** Invocations that share four rows of scores in the gradient. */
  readonly scoreMembers: number;
}

const GPU: AttentionVariant = {
  fusedUpTo: LARGEST_FUSED_HEAD,
  fused: (_, options) => fusedPlain(options),
  scoreMembers: 16,
};

export const ATTENTIONS: Readonly<Record<Family, AttentionVariant>> = {
  subgroup: { fusedUpTo: LARGEST_FUSED_HEAD, fused: fusedSubgroup, scoreMembers: 1 },
  plain: { fusedUpTo: LARGEST_FUSED_HEAD, fused: (_, options) => fusedPlain(options), scoreMembers: 1 },
  tile: GPU,
  matrix: { ...GPU, fusedUpTo: Number.POSITIVE_INFINITY, fused: attentionMatrix },
};
