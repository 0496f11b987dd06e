// JSON that others wrote: parsed, checked by a schema, and refused with one sentence that names the file.

import { readFile } from 'node:fs/promises';
import type { ZodError, ZodType } from 'zod';
import { ModelError } from '../kernels/errors.ts';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Longest JSON file read as a whole (the index of a sharded model is the largest in practice, a few MB). */
const MAX_JSON_BYTES = 100_000_000;

/** One token of valid JSON text: a string, or a character that opens, closes or separates. */
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]/gs;

/** Strings, and the numbers that Python's json writes but JSON does not have. */
const PYTHON_NUMBER = /"(?:[^"\\]|\\.)*"|-?Infinity|NaN/gs;

/**
 * The first key that one object of `text` holds twice, or undefined. `JSON.parse` silently keeps the last one,
 * which would let a file say two things at once. `text` must be valid JSON.
 */
export function duplicateKey(text: string): string | undefined {
  const keys: (Set<string> | undefined)[] = [];
  let candidate: string | undefined;
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === '{') keys.push(new Set());
    else if (token === '[') keys.push(undefined);
    else if (token === '}' || token === ']') keys.pop();
    else if (token === ':') {
      const key = JSON.parse(candidate!) as string;
      const seen = keys.at(-1)!;
      if (seen.has(key)) return key;
      seen.add(key);
    } else if (token !== ',') candidate = token;
  }
  return undefined;
}

/**
 * Parses UTF-8 JSON of which no object holds a key twice; throws `ModelError` naming `file` otherwise.
 * Python writes infinities without quotes (`"lambda_min_clipped": -Infinity` in scheduler files): with `python`
 * they become strings, so that a schema that wants a number there still refuses them.
 */
export function parseJson(bytes: Uint8Array, file: string, python = false): unknown {
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    throw new ModelError(`${file}: the JSON is not valid UTF-8`);
  }
  if (python) text = text.replace(PYTHON_NUMBER, (token) => (token.startsWith('"') ? token : `"${token}"`));
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ModelError(`${file}: not valid JSON (${oneLine((error as Error).message)})`);
  }
  const twice = duplicateKey(text);
  if (twice !== undefined)
    throw new ModelError(`${file}: the key ${quote(twice)} stands twice in one object`);
  return value;
}

/** Reads and parses a JSON file; throws `ModelError` naming it when it cannot be read or is not JSON. */
export async function readJson(file: string): Promise<unknown> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(file);
  } catch (error) {
    throw new ModelError(`${file}: ${reason(error)}`);
  }
  if (bytes.length > MAX_JSON_BYTES)
    throw new ModelError(`${file}: ${bytes.length} bytes of JSON, at most ${MAX_JSON_BYTES} are read`);
  return parseJson(bytes, file, true);
}

/** Checks a parsed value by a schema; throws `ModelError` with the file, the path inside and what was wanted. */
export function checked<T>(schema: ZodType<T>, value: unknown, file: string): T {
  const result = schema.safeParse(value);
  if (!result.success) throw new ModelError(`${file}: ${firstIssue(result.error)}`);
  return result.data;
}

function firstIssue(error: ZodError): string {
  const issue = error.issues[0]!;
  const path = issue.path.map(String).join('.');
  return `${path === '' ? '' : `${path}: `}${oneLine(issue.message)}`;
}

/** Why the file system refused, in a few words. */
export function reason(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOENT') return 'no such file';
  if (code === 'EISDIR') return 'is a folder, not a file';
  if (code === 'ENOTDIR') return 'is inside something that is not a folder';
  if (code === 'EACCES' || code === 'EPERM') return 'may not be read';
  return `cannot be read (${code ?? oneLine(String(error))})`;
}

/** A name from a file for a message: quoted, control characters escaped, cut when long. */
export function quote(name: unknown): string {
  const text = JSON.stringify(name) ?? String(name);
  return text.length > 120 ? `${text.slice(0, 117)}..."` : text;
}

const oneLine = (text: string): string => {
  const line = text.replace(/\s+/g, ' ');
  return line.length > 160 ? `${line.slice(0, 157)}...` : line;
};
