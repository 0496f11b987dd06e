// What an option is, and how the texts of those that are typed alike are read.

import { parse } from 'csv-parse/sync';
import { z } from 'zod';

/** An option within its group. */
interface Told<T extends z.ZodType> {
  /** As commander reads it. */
  readonly flags: string;
  readonly help: string;
  readonly schema: T;
  /** What it may be, for people. */
  readonly wanted: string;
  /** What counts where it is not given. */
  readonly fallback?: string | false;
  /** May be given several times. */
  readonly several?: true;
}

/** An option. */
export interface Spec<T extends z.ZodType> extends Told<T> {
  readonly group: 'Model' | 'Deciding' | 'Purifying' | 'Attacking' | 'Output' | 'Running';
}

/** Makes the options of a group: by `spec` those that have a value always, by `given` those that may have none. */
export function optionsOf(group: Spec<z.ZodType>['group']) {
  const spec = <T extends z.ZodType>(one: Told<T>): Spec<T> => ({ ...one, group });
  const given = <T extends z.ZodType>(one: Told<T>) => spec({ ...one, schema: one.schema.optional() });
  return { spec, given };
}

/** An integer of a range. */
export const integer = (least: number, most = Number.MAX_SAFE_INTEGER) =>
  z
    .string()
    .regex(/^\d+$/)
    .transform(Number)
    .refine((n) => n >= least && n <= most);

/** Integers of 1 or more, separated by commas. */
export const integers = z
  .string()
  .transform((text) => text.split(',').map((part) => part.trim()))
  .pipe(z.array(integer(1)).min(1));

/** An integer of 1 or more; undefined for auto. */
export const auto = z.union([z.literal('auto').transform(() => undefined), integer(1)]);

/** Above 0 and below 1. */
export const fraction = z
  .string()
  .transform(Number)
  .refine((x) => x > 0 && x < 1);

/** Names as a row of CSV has them. */
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

/** A size above 0, also as a quotient: 0.5, 1e-2, 8/255. */
const quotient = z
  .string()
  .regex(/^[\d.]+(e[+-]?\d+)?(\/[\d.]+)?$/i)
  .transform((text) => text.split('/').map(Number))
  .transform(([above = Number.NaN, below = 1]) => above / below)
  .refine((x) => x > 0 && Number.isFinite(x));

/** Sizes above 0, separated by commas. */
export const sizes = z
  .string()
  .transform((text) => text.split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part))))
  .refine((list) => list.every((x) => x > 0 && Number.isFinite(x)));

export const text = z.string().min(1);
export const flag = z.boolean();

/** A number of steps, with what it may be. */
export const stepCount = { schema: integer(1, 10_000), wanted: 'an integer from 1 to 10000' };

/** A size above 0, with what it may be. */
export const radius = { schema: quotient, wanted: 'a number above 0 such as 8/255 or 0.5' };
