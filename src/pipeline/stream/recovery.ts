// What a session does about a model that fails under way.

import { DeviceLostError, OutOfMemoryError } from '../../kernels/errors.ts';

export interface Recovery {
  /** Losses of the device since a batch last came back, this one included. */
  readonly losses: number;
  /** What to try with less memory. */
  readonly wanted?: { readonly batchSize: number };
}

/**
 * Opening the model again: with half the batch where memory did not suffice, and once for a lost device; nothing
 * for two losses without a batch between them, and for any other error.
 */
export function recoveryFrom(error: unknown, batchSize: number, losses: number): Recovery | undefined {
  if (error instanceof OutOfMemoryError && batchSize > 1)
    return { losses, wanted: { batchSize: Math.floor(batchSize / 2) } };
  if (error instanceof DeviceLostError && losses === 0) return { losses: 1 };
  return undefined;
}
