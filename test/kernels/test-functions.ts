// The functions that kernel test files use. Under Vitest these are Vitest's own functions (the projects that
// run kernels have `globals: true`). Outside it, `bench -- device --mode test` runs the same files on a
// device that has no Vitest: there the functions record the tests, and `runCase` runs one test and returns
// its errors and their bounds.

import { FAMILIES } from '../../src/kernels/device/families.ts';

type Vitest = Pick<typeof import('vitest'), 'afterAll' | 'describe' | 'expect' | 'it'>;

/** A comparison of a number with a bound, or of values with values (0 if equal, else infinity, against 0). */
export interface Comparison {
  readonly error: number;
  readonly bound: number;
  readonly holds: boolean;
  readonly what: string;
}

/** A recorded test; `family` is empty if the test needs no device or uses the device's own family. */
export interface RecordedCase {
  readonly group: string;
  readonly title: string;
  readonly family: string;
  /** Index in the table of cases that the test came from; tables start with their smallest cases. */
  readonly index: number;
  readonly run: (context: { skip: (reason?: string) => never }) => unknown;
}

export interface CaseResult {
  readonly outcome: 'passed' | 'failed' | 'skipped';
  readonly comparisons: readonly Comparison[];
  readonly message?: string;
}

class Skipped extends Error {}
class Failed extends Error {}

/**
 * Calls at the top level of a file. They are kept so that the tests can be collected again, with new devices,
 * after a device was lost.
 */
let topLevel: (() => void)[] = [];
let collecting = false;
let cases: RecordedCase[] = [];
let comparisons: Comparison[] = [];
let group: { readonly name: string; readonly family: string } = { name: '', family: '' };

/** Returns the family of a row of `describe.each`, which is the row itself or its `family`; '' if it has none. */
function familyOf(row: unknown): string {
  const family = typeof row === 'object' && row !== null && 'family' in row ? row.family : row;
  return (FAMILIES as readonly unknown[]).includes(family) ? String(family) : '';
}

/** Fills in a title like Vitest: `%s`, `%i` and the like in order, `$name` and `$a.b` from the case. */
function titled(title: string, row: unknown): string {
  const values = Array.isArray(row) ? [...row] : [row];
  const filled = title.replace(/%[sidfoj#]/g, () => String(values.shift()));
  return filled.replace(/\$([\w.]+)/g, (_, path: string) => {
    let value: unknown = row;
    for (const key of path.split('.')) value = (value as Record<string, unknown> | undefined)?.[key];
    return Array.isArray(value) ? `[${value}]` : String(value);
  });
}

function add(title: string, index: number, run: RecordedCase['run']): void {
  if (collecting) cases.push({ group: group.name, family: group.family, title, index, run });
  else topLevel.push(() => add(title, index, run));
}

function inGroup(name: string, family: string, body: () => void): void {
  if (!collecting) {
    topLevel.push(() => inGroup(name, family, body));
    return;
  }
  const outer = group;
  group = { name: outer.name ? `${outer.name} > ${name}` : name, family: family || outer.family };
  body();
  group = outer;
}

const itRecorded = Object.assign((title: string, run: RecordedCase['run']): void => add(title, 0, run), {
  for:
    (rows: readonly unknown[]) =>
    (title: string, run: (row: unknown, context: Parameters<RecordedCase['run']>[0]) => unknown): void =>
      rows.forEach((row, i) => {
        add(titled(title, row), i, (context) => run(row, context));
      }),
  each:
    (rows: readonly unknown[]) =>
    (title: string, run: (...row: unknown[]) => unknown): void =>
      rows.forEach((row, i) => {
        add(titled(title, row), i, () => run(...(Array.isArray(row) ? row : [row])));
      }),
});

const describeRecorded = Object.assign((name: string, body: () => void): void => inGroup(name, '', body), {
  each:
    (rows: readonly unknown[]) =>
    (name: string, body: (...row: unknown[]) => void): void => {
      for (const row of rows)
        inGroup(titled(name, row), familyOf(row), () => body(...(Array.isArray(row) ? row : [row])));
    },
});

const isList = (value: object): value is ArrayLike<unknown> =>
  Array.isArray(value) || ArrayBuffer.isView(value);

/** Returns whether numbers, arrays, typed arrays or plain objects are equal; NaN equals NaN. */
function equal(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (ArrayBuffer.isView(a) !== ArrayBuffer.isView(b)) return false;
  if (isList(a) && isList(b)) {
    if (a.length !== b.length) return false;
    for (let i = 0; i < a.length; i++) if (!equal(a[i], b[i])) return false;
    return true;
  }
  const [x, y] = [a as Record<string, unknown>, b as Record<string, unknown>];
  const keys = Object.keys(x);
  return keys.length === Object.keys(y).length && keys.every((key) => equal(x[key], y[key]));
}

/** Returns a short text of a value; of long arrays only the start. */
function shown(value: unknown): string {
  if (ArrayBuffer.isView(value) || Array.isArray(value)) {
    const { length } = value as unknown as { readonly length: number };
    return `[${Array.from(value as unknown as ArrayLike<number>)
      .slice(0, 4)
      .join(', ')}${length > 4 ? `, ... ${length} values` : ''}]`;
  }
  return String(value).slice(0, 200);
}

function expectRecorded(actual: unknown, label = '') {
  const compare = (holds: boolean, error: number, bound: number, relation: string, to: unknown): void => {
    const what = `${label ? `${label}: ` : ''}expected ${relation} ${shown(to)}, got ${shown(actual)}`;
    comparisons.push({ error, bound, holds, what });
    if (!holds) throw new Failed(what);
  };
  const number = Number(actual);
  const distance = (holds: boolean) => (holds ? 0 : Number.POSITIVE_INFINITY);
  const same = (to: unknown): void => {
    const holds = equal(actual, to);
    compare(holds, distance(holds), 0, 'the same as', to);
  };
  return {
    toBeLessThan: (bound: number) => compare(number < bound, number, bound, 'less than', bound),
    toBeLessThanOrEqual: (bound: number) =>
      compare(number <= bound, distance(number <= bound), 0, 'at most', bound),
    toBeGreaterThan: (bound: number) =>
      compare(number > bound, distance(number > bound), 0, 'more than', bound),
    toBeGreaterThanOrEqual: (bound: number) =>
      compare(number >= bound, distance(number >= bound), 0, 'at least', bound),
    toBeCloseTo(to: number, digits = 2) {
      const [error, bound] = [Math.abs(number - to), 10 ** -digits / 2];
      compare(error < bound, error, bound, `within ${bound} of`, to);
    },
    toBe(to: unknown) {
      const numbers = typeof actual === 'number' && typeof to === 'number';
      const holds = Object.is(actual, to);
      compare(holds, numbers ? Math.abs(actual - to) : distance(holds), 0, 'the same as', to);
    },
    toBeUndefined: () => same(undefined),
    toEqual: same,
    toContain(part: unknown) {
      const holds = (actual as string | readonly unknown[]).includes(part as never);
      compare(holds, distance(holds), 0, 'something that contains', part);
    },
    toMatch(pattern: RegExp) {
      const holds = pattern.test(String(actual));
      compare(holds, distance(holds), 0, 'a text like', pattern);
    },
    toHaveLength: (length: number) => {
      const holds = (actual as { readonly length: number }).length === length;
      compare(holds, distance(holds), 0, 'a length of', length);
    },
    toThrow(pattern?: unknown) {
      let thrown: unknown;
      try {
        (actual as () => unknown)();
      } catch (error) {
        thrown = error;
      }
      const message = thrown instanceof Error ? thrown.message : String(thrown);
      const matches =
        pattern === undefined ||
        (typeof pattern === 'string' && message.includes(pattern)) ||
        (pattern instanceof RegExp && pattern.test(message)) ||
        (typeof pattern === 'function' && thrown instanceof pattern);
      const holds = thrown !== undefined && matches;
      compare(holds, distance(holds), 0, 'an exception like', pattern);
    },
    not: {
      toContain(part: unknown) {
        const holds = !(actual as string | readonly unknown[]).includes(part as never);
        compare(holds, distance(holds), 0, 'nothing that contains', part);
      },
      toThrow() {
        (actual as () => unknown)();
        compare(true, 0, 0, 'no exception', '');
      },
    },
  };
}

/**
 * Returns a function that collects the tests of the file that was imported last. Each call runs the bodies of
 * its `describe` again, so that they open devices again.
 */
export function takeFile(): () => readonly RecordedCase[] {
  const calls = topLevel;
  topLevel = [];
  return () => {
    cases = [];
    collecting = true;
    try {
      for (const call of calls) call();
    } finally {
      collecting = false;
    }
    return cases;
  };
}

/** Runs one recorded test. It never throws; an error becomes a failure with its message. */
export async function runCase({ run }: RecordedCase): Promise<CaseResult> {
  comparisons = [];
  try {
    await run({
      skip(reason) {
        throw new Skipped(reason);
      },
    });
    return { outcome: comparisons.length > 0 ? 'passed' : 'skipped', comparisons };
  } catch (error) {
    if (error instanceof Skipped) return { outcome: 'skipped', comparisons, message: error.message };
    const message = error instanceof Error ? error.message : String(error);
    return { outcome: 'failed', comparisons, message };
  }
}

/** The recording functions, also under Vitest. */
export const recorder = {
  describe: describeRecorded,
  it: itRecorded,
  expect: expectRecorded,
  // Outside Vitest files share devices, and `bench -- device --mode test` closes them.
  afterAll: () => {},
} as unknown as Vitest;

const host = globalThis as Partial<Vitest>;

export const { afterAll, describe, expect, it } = host.describe && host.expect ? (host as Vitest) : recorder;
