// Errors that a caller can act on. Each message says what was expected, what was found instead, and what to do about it.
// This file imports nothing, so that every file can import it.

/** Shapes do not fit together. Thrown while a graph is built, before anything runs. */
export class ShapeError extends Error {
  override readonly name = 'ShapeError';
}

/** A configuration, value or format is known but not supported. */
export class UnsupportedError extends Error {
  override readonly name = 'UnsupportedError';
}

/** There is no adapter, or none that meets WebGPU's default limits. */
export class NoDeviceError extends Error {
  override readonly name = 'NoDeviceError';
}

/** The device was lost during a run. The work in flight can be run again on a new device. */
export class DeviceLostError extends Error {
  override readonly name = 'DeviceLostError';
}

/** The device does not have enough memory. */
export class OutOfMemoryError extends Error {
  override readonly name = 'OutOfMemoryError';
}

/** A model folder cannot be used. The message names the file and, if one is at fault, the tensor. */
export class ModelError extends Error {
  override readonly name = 'ModelError';
}

/** Options are invalid or contradict each other. The command exits with status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** One item failed; a stream passes the failure on as a value. `code` is stable, `message` is for people. */
export class ItemError extends Error {
  override readonly name = 'ItemError';
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** Returns the failure that an `ItemError` describes. Throws any other error, as it does not concern one item. */
export function faultOf(error: unknown): { readonly code: string; readonly message: string } {
  if (!(error instanceof ItemError)) throw error;
  return { code: error.code, message: error.message };
}
