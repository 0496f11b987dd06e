// Decides what to do if a model fails while it runs.

import { DeviceLostError, OutOfMemoryError } from '../../errors.ts';

/** How to open the model again. */
interface Recovery {
  /** Number of losses of the device since a batch last finished, including this one. */
  readonly losses: number;
  /** The smaller batch to open the model with, if memory did not suffice. */
  readonly request?: { readonly batchSize: number };
}

/**
 * Decides whether to open the model again: with half the batch after the device ran out of memory, and once after the
 * device was lost. Returns undefined for two losses without a finished batch between them, and for any other error.
 */
export function recoveryFrom(error: unknown, batchSize: number, losses: number): Recovery | undefined {
  if (error instanceof OutOfMemoryError && batchSize > 1)
    return { losses, request: { batchSize: Math.floor(batchSize / 2) } };
  if (error instanceof DeviceLostError && losses === 0) return { losses: 1 };
  return undefined;
}
