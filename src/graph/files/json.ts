// Parses JSON from model files and checks it against schemas. Errors are one sentence that names the file.

import type { ZodError, ZodType } from 'zod';
import { ModelError } from '../../errors.ts';
import { type Files, readWhole } from './files.ts';
import { wrongContent } from './wrong-content.ts';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Deepest nesting accepted. The files read here have less than 10; millions would keep a parser busy. */
const MAX_DEPTH = 100;

/** What `JSON.parse` does not report about a text. */
interface Scan {
  readonly depth: number;
  /** The first key that one object holds twice. `JSON.parse` keeps the last value, so a file could hold two meanings. */
  readonly duplicate: string | undefined;
  /** Start and end of every NaN and Infinity, which Python's json writes although JSON has none. */
  readonly pythonNumbers: readonly (readonly [start: number, end: number])[];
}

/** Scans text that may or may not be JSON, in linear time and without recursion. */
function scan(text: string): Scan {
  const keys: (Set<string> | undefined)[] = [];
  const pythonNumbers: (readonly [number, number])[] = [];
  let depth = 0;
  let duplicate: string | undefined;
  let candidate = '';
  for (let i = 0; i < text.length; i++) {
    switch (text[i]) {
      case '"': {
        const end = stringEnd(text, i);
        candidate = text.slice(i, end + 1);
        i = end;
        break;
      }
      case '{':
      case '[':
        keys.push(text[i] === '{' ? new Set() : undefined);
        if (keys.length > depth) depth = keys.length;
        if (depth > MAX_DEPTH) return { depth, duplicate, pythonNumbers };
        break;
      case '}':
      case ']':
        keys.pop();
        break;
      case ':': {
        const key = decoded(candidate);
        const seen = keys.at(-1);
        if (seen?.has(key)) duplicate ??= key;
        seen?.add(key);
        break;
      }
      case 'N':
      case 'I': {
        const start = text[i - 1] === '-' ? i - 1 : i;
        const word = text[i] === 'N' ? 'NaN' : 'Infinity';
        if (!text.startsWith(word, i)) break;
        pythonNumbers.push([start, i + word.length]);
        i += word.length - 1;
        break;
      }
    }
  }
  return { depth, duplicate, pythonNumbers };
}

/** Returns the position of the quote that ends the string beginning at `start`, or the end of the text. */
function stringEnd(text: string, start: number): number {
  for (let end = start; ; ) {
    end = text.indexOf('"', end + 1);
    if (end < 0) return text.length;
    let backslashes = 0;
    while (text[end - 1 - backslashes] === '\\') backslashes++;
    if (backslashes % 2 === 0) return end;
  }
}

/** Returns a key without its quotes and escapes; unchanged if it is not a JSON string. */
function decoded(token: string): string {
  if (!token.includes('\\')) return token.slice(1, -1);
  try {
    return JSON.parse(token) as string;
  } catch {
    return token;
  }
}

/**
 * Parses UTF-8 JSON. Python writes infinities without quotes (`"lambda_min_clipped": -Infinity` in scheduler files); with
 * `python` they become strings, so that a schema that expects a number there still refuses them.
 * @throws ModelError naming `file` if it is not JSON or one of its objects holds a key twice. It says so if the file is a
 * Git LFS pointer or a page of a web site.
 */
export function parseJson(bytes: Uint8Array, file: string, python = false): unknown {
  const wrong = wrongContent(bytes);
  if (wrong) throw new ModelError(`${file}: ${wrong}`);
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    throw new ModelError(`${file}: the JSON is not valid UTF-8`);
  }
  const { depth, duplicate, pythonNumbers } = scan(text);
  if (depth > MAX_DEPTH) throw new ModelError(`${file}: the JSON is nested more than ${MAX_DEPTH} deep`);
  if (python) text = quoted(text, pythonNumbers);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ModelError(`${file}: not valid JSON (${oneLine((error as Error).message)})`);
  }
  if (duplicate !== undefined)
    throw new ModelError(`${file}: one object holds the key ${quote(duplicate)} twice`);
  return value;
}

/** Puts quotes around parts of a text. */
function quoted(text: string, parts: Scan['pythonNumbers']): string {
  const done: string[] = [];
  let from = 0;
  for (const [start, end] of parts) {
    done.push(text.slice(from, start), '"', text.slice(start, end), '"');
    from = end;
  }
  return done.join('') + text.slice(from);
}

/** Reads and parses a JSON file. @throws ModelError naming it if it cannot be read or is not JSON. */
export async function readJson(files: Files, name: string): Promise<unknown> {
  return parseJson(await readWhole(files, name), files.describe(name), true);
}

/** Returns a function that reads a JSON file and parses what it holds; `parse` names the file in its errors. */
export const jsonReader =
  <T>(parse: (value: unknown, file: string) => T) =>
  async (files: Files, name: string): Promise<T> =>
    parse(await readJson(files, name), files.describe(name));

/** Checks a parsed value by a schema. @throws ModelError with the file, the path inside it and what is wrong there. */
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

/** Returns a name from a file as a message shows it: in quotes, control characters escaped, cut if it is long. */
export function quote(name: unknown): string {
  const short =
    typeof name === 'string' ? name.slice(0, 200) : Array.isArray(name) ? name.slice(0, 50) : name;
  const text = (JSON.stringify(short) ?? String(short)).replace(/\p{Cc}/gu, '?');
  return text.length > 120 ? `${text.slice(0, 116)}..."` : text;
}

const oneLine = (text: string): string => {
  const line = text.slice(0, 400).replace(/[\s\p{Cc}]+/gu, ' ');
  return line.length > 160 ? `${line.slice(0, 157)}...` : line;
};
