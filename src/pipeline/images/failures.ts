// Faults of single items: their stable codes, and which of them errors of the system get.

import { ItemError } from '../../errors.ts';
import type { ItemFailure } from '../types.ts';

/** Every code that the `error.code` of a failed item can hold, with what it means. */
export const FAILURE_CODES = {
  'not-found':
    'nothing has that name (any more), a link that leads nowhere, or a pattern that matches nothing',
  unreadable: 'the system refuses to read it',
  'not-a-file': 'it is a device, a socket, a pipe, or a folder instead of a file',
  'link-loop': 'links that lead to each other',
  empty: 'a file of 0 bytes',
  'not-an-image':
    'its first bytes are those of no image format, or it is a value that images cannot be read from',
  'invalid-pixels':
    'pixels in memory with a wrong length, size or number of channels, or values outside their range',
  'unsupported-format': 'an image format, or a variant of one, that is not decoded',
  'decoder-missing': 'the optional decoder of its format is not installed',
  truncated: 'the file ends before the image does',
  corrupt: 'the data contradicts itself',
  'decoder-failed': 'the thread that decoded it ended unexpectedly, as for lack of memory',
  'too-large': 'more pixels or bytes than the limits allow',
} as const;

/** One of the stable codes of a failed item. */
type FailureCode = keyof typeof FAILURE_CODES;

/** Makes an `ItemError` with one of these codes. */
export const fault = (code: FailureCode, message: string, cause?: unknown) =>
  new ItemError(code, message, { cause });

const SYSTEM_CODES: Readonly<Record<string, FailureCode>> = {
  ENOENT: 'not-found',
  ENOTDIR: 'not-found',
  ENAMETOOLONG: 'not-found',
  ELOOP: 'link-loop',
  EISDIR: 'not-a-file',
  ENXIO: 'not-a-file',
};

const SYSTEM_MESSAGES: Partial<Readonly<Record<FailureCode, string>>> = {
  'not-found': 'no such file or folder, or a link that leads nowhere',
  'link-loop': 'links that lead to each other',
  'not-a-file': 'not a regular file',
};

/** Returns the error code of the operating system that an error carries, if any. */
export function systemCode(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' && /^E[A-Z0-9]+$/.test(code) ? code : undefined;
}

/**
 * Returns the `ItemError` for an error that concerns one item alone: an `ItemError` itself, or an error of the system.
 * Throws any other error, as a bug is not the item's fault.
 */
export function itemErrorOf(error: unknown): ItemError {
  if (error instanceof ItemError) return error;
  const system = systemCode(error);
  if (system === undefined) throw error;
  const code = SYSTEM_CODES[system] ?? 'unreadable';
  return fault(code, SYSTEM_MESSAGES[code] ?? `cannot be read (${system})`, error);
}

/** Returns the failed item for an error that concerns this path alone. Throws any other error (see `itemErrorOf`). */
export function failureOf(path: string, error: unknown): ItemFailure {
  const { code, message } = itemErrorOf(error);
  return { path, error: { code, message } };
}
