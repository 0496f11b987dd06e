// How attention kernels differ between the kernel families.

import type { Capabilities } from '../device/device.ts';
import type { Family } from '../device/families.ts';
import type { Routine } from '../device/routine.ts';
import { fusedGradient, LARGEST_FUSED_GRADIENT_HEAD } from './attention-backward-fused.ts';
import { fusedTileGradient, LARGEST_TILE_GRADIENT_HEAD } from './attention-backward-tile.ts';
import { fusedPlain, fusedSubgroup, LARGEST_FUSED_HEAD } from './attention-fused.ts';
import { attentionMatrix } from './attention-matrix.ts';
import type { AttentionOptions, GradientOptions } from './attention-options.ts';
import { fusedTile, LARGEST_TILE_HEAD } from './attention-tile.ts';

interface AttentionVariant {
  /** The most channels of a head for which one kernel computes everything. */
  readonly fusedUpTo: number;
  /** Returns the routine for such heads; its operands are q, k, v and y. */
  readonly fused: (capabilities: Capabilities, options: AttentionOptions) => Routine;
  /** The most channels of a head for which two kernels compute the gradient; 0 for none. */
  readonly fusedGradientUpTo: number;
  /** Returns the gradient's routine for such heads. */
  readonly fusedGradient: (capabilities: Capabilities, options: GradientOptions) => Routine;
  /** Invocations that share four rows of scores in the gradient. */
  readonly scoreMembers: number;
}

const GPU: AttentionVariant = {
  fusedUpTo: LARGEST_TILE_HEAD,
  fused: fusedTile,
  fusedGradientUpTo: LARGEST_TILE_GRADIENT_HEAD,
  fusedGradient: fusedTileGradient,
  scoreMembers: 16,
};

export const ATTENTIONS: Readonly<Record<Family, AttentionVariant>> = {
  subgroup: {
    fusedUpTo: LARGEST_FUSED_HEAD,
    fused: fusedSubgroup,
    fusedGradientUpTo: LARGEST_FUSED_GRADIENT_HEAD,
    fusedGradient,
    scoreMembers: 1,
  },
  plain: {
    fusedUpTo: LARGEST_FUSED_HEAD,
    fused: (_, options) => fusedPlain(options),
    fusedGradientUpTo: 0,
    fusedGradient,
    scoreMembers: 1,
  },
  tile: GPU,
  matrix: { ...GPU, fusedUpTo: Number.POSITIVE_INFINITY, fused: attentionMatrix },
};
