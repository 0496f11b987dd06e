// Errors that a caller can act on. Each message is one sentence with what was got and what was wanted.

/** Shapes that do not fit together; thrown where the graph is built, before anything runs. */
export class ShapeError extends Error {
  override readonly name = 'ShapeError';
}

/** A configuration, value or format that is understood but not supported. */
export class UnsupportedError extends Error {
  override readonly name = 'UnsupportedError';
}

/** No adapter, or none that meets WebGPU's defaults. */
export class NoDeviceError extends Error {
  override readonly name = 'NoDeviceError';
}

/** The device went away under way; what was in flight can be run again on a new one. */
export class DeviceLostError extends Error {
  override readonly name = 'DeviceLostError';
}

/** The device has no memory left for what was asked. */
export class OutOfMemoryError extends Error {
  override readonly name = 'OutOfMemoryError';
}

/** A model folder that cannot be used; the message names the file and, where there is one, the tensor. */
export class ModelError extends Error {
  override readonly name = 'ModelError';
}
