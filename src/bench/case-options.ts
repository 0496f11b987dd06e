// The options of a benchmark case besides its shape. Each op uses some of them (see builders.ts).

import type { WeightDtype } from '../kernels/device/routine.ts';
import type { Activation } from '../kernels/elementwise/activation.ts';

export interface CaseOptions {
  /** Channels of the output; for `slice` the number of channels that it takes. Default: those of x. */
  readonly channels?: number;
  /** Height and width of a convolution's kernel. Default: 3 and 3. */
  readonly kernel?: readonly [height: number, width: number];
  /** Default: 1. For ops that move channels to pixels, the side of a block; default: 2. */
  readonly stride?: number;
  /** Default: what keeps the size with stride 1 and an odd kernel. */
  readonly padding?: readonly [top: number, left: number, bottom: number, right: number];
  /** Groups of a group norm. Default: the largest divisor of the channels that is 32 or less. */
  readonly groups?: number;
  /** Heads of an attention. Default: of 64 channels each if these divide the channels, else one. */
  readonly heads?: number;
  /** Tokens of an attention's keys and values. Default: those of its queries. */
  readonly keys?: number;
  /** Rows of a table, views or slots that samples pick from. Default: 10. */
  readonly entries?: number;
  readonly activation?: Activation;
  /** How weights are stored. Default: f32. */
  readonly weights?: WeightDtype;
  readonly bias?: boolean;
  /** An attention in which a query sees only the keys up to its own. */
  readonly causal?: boolean;
  /** What is fused into a convolution: an affine map with an activation, an embedding, a residual, a factor. */
  readonly affine?: Activation;
  readonly embedding?: boolean;
  readonly residual?: boolean;
  readonly scale?: number;
  readonly upsample?: 2;
  /** Whether a convolution's weights are transformed in every run. */
  readonly compact?: boolean;
}

export type CaseOption = keyof CaseOptions;
