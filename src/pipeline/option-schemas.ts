// Schemas of options' texts that several options share.

import { parse } from 'csv-parse/sync';
import { z } from 'zod';
import { equallySpaced } from '../graph/sigmas.ts';

/** An integer from `least` to `most`. */
export const integer = (least: number, most = Number.MAX_SAFE_INTEGER) =>
  z
    .string()
    .regex(/^\d+$/)
    .transform(Number)
    .refine((n) => n >= least && n <= most);

/** Integers of 1 or more, with their description. */
export const integers = {
  schema: z
    .string()
    .transform((text) => text.split(',').map((part) => part.trim()))
    .pipe(z.array(integer(1)).min(1)),
  expected: 'integers of 1 or more, separated by commas',
};

/** An integer of 1 or more, or `auto`, whose value is undefined. */
export const auto = z.union([z.literal('auto').transform(() => undefined), integer(1)]);

/** A number above 0 and below 1. */
export const fraction = z
  .string()
  .transform(Number)
  .refine((x) => x > 0 && x < 1);

/** Names separated by commas, with CSV's quotes. */
export const names = z.string().transform((text, context) => {
  const list = splitNames(text);
  if (list.length > 0 && !list.includes('')) return list;
  context.addIssue({ code: 'custom', message: 'no names' });
  return z.NEVER;
});

function splitNames(text: string): string[] {
  try {
    return (parse(text, { trim: true })[0] ?? []) as string[];
  } catch {
    return [];
  }
}

/** A number above 0, which may be a quotient: 0.5, 1e-2, 8/255. */
const quotient = z
  .string()
  .regex(/^[\d.]+(e[+-]?\d+)?(\/[\d.]+)?$/i)
  .transform((text) => text.split('/').map(Number))
  .transform(([above = Number.NaN, below = 1]) => above / below)
  .refine((x) => x > 0 && Number.isFinite(x));

/** Numbers above 0: separated by commas, or `linspace:A:B:N` for N equally spaced ones from A to B. */
export const sizes = z
  .string()
  .transform((text) => {
    const [, from, to, count] = /^linspace:([^:]+):([^:]+):([1-9]\d{0,4})$/.exec(text) ?? [];
    if (count !== undefined) return equallySpaced(Number(from), Number(to), Number(count));
    return text.split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  })
  .refine((list) => list.every((x) => x > 0 && Number.isFinite(x)));

export const text = z.string().min(1);

/** A flag, which has no text. */
export const flag = { schema: z.boolean(), expected: 'no value', fallback: false } as const;

/** A flag with an opposite that is a flag too (`--no-`): undefined if neither is given. */
export const maybe = { schema: z.boolean(), expected: 'no value' } as const;

/** One of some names, with their description. */
export const choice = <Name extends string>(names: readonly Name[]) => ({
  schema: z.enum(names),
  expected: names.join(', '),
});

/** An integer of 1 or more, with its description. */
export const count = { schema: integer(1), expected: 'an integer of 1 or more' };

/** A number of steps, with its description. */
export const stepCount = { schema: integer(1, 10_000), expected: 'an integer from 1 to 10000' };

/** A radius or the size of a step, with its description. */
export const radius = { schema: quotient, expected: 'a number above 0 such as 8/255 or 0.5' };
