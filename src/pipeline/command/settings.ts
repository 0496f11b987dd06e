// What the command line asks for, checked: from the texts of options to values, before anything is opened.

import { parse } from 'csv-parse/sync';
import { z } from 'zod';
import { UsageError } from '../errors.ts';

/** Levels of what is logged to standard error, from least to most. */
export const LOG_LEVELS = ['silent', 'error', 'warn', 'info', 'debug'] as const;

/** One of `LOG_LEVELS`. */
export type LogLevel = (typeof LOG_LEVELS)[number];

const integer = (least: number, most = Number.MAX_SAFE_INTEGER) =>
  z
    .string()
    .regex(/^\d+$/)
    .transform(Number)
    .refine((n) => n >= least && n <= most);

const integers = z
  .string()
  .transform((text) => text.split(',').map((part) => part.trim()))
  .pipe(z.array(integer(1)).min(1));

const auto = z.union([z.literal('auto').transform(() => undefined), integer(1)]);

const fraction = z
  .string()
  .transform(Number)
  .refine((x) => x > 0 && x < 1);

const names = z.string().transform((text, context) => {
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

/** Every option by its name as commander has it: what it may be, and how to say so. */
const FIELDS = {
  model: [z.string().min(1), 'a model folder or the name of a shipped model'],
  prompts: [z.string().min(1).optional(), 'a CSV file'],
  labels: [names.optional(), 'names separated by commas'],
  template: [z.string().includes('{}').optional(), 'a text with {} in the place of the name'],
  strategy: [z.enum(['sequential', 'staged', 'all']), 'sequential, staged or all'],
  nSamples: [integers.optional(), 'integers of 1 or more, separated by commas'],
  toKeep: [integers.optional(), 'integers of 1 or more, separated by commas'],
  confidence: [fraction.optional(), 'a number between 0 and 1'],
  budget: [integer(1).optional(), 'an integer of 1 or more'],
  timesteps: [z.string().startsWith('even:').optional(), 'even:N'],
  sigmas: [z.string().startsWith('linspace:').optional(), 'linspace:A:B:N'],
  loss: [z.enum(['l2', 'l1', 'huber']).optional(), 'l2, l1 or huber'],
  weighting: [z.string().min(1).optional(), 'uniform, rdc-code, lognormal, elbo or a file'],
  seed: [integer(0, 2 ** 32 - 1), 'an integer from 0 to 4294967295'],
  noise: [z.string().min(1).optional(), 'a safetensors file'],
  output: [z.string().min(1), 'a file, or - for standard output'],
  format: [z.enum(['jsonl', 'csv']), 'jsonl or csv'],
  topK: [integer(1), 'an integer of 1 or more'],
  errors: [z.string().min(1).optional(), 'a file'],
  resume: [z.boolean(), 'no value'],
  imageSize: [integer(1, 65_536).optional(), 'an integer of 1 or more'],
  batch: [auto, 'auto or an integer of 1 or more'],
  concurrency: [auto, 'auto or an integer of 1 or more'],
  quiet: [z.boolean(), 'no value'],
  logLevel: [z.enum(LOG_LEVELS), LOG_LEVELS.join(', ')],
  null: [z.boolean(), 'no value'],
} as const satisfies Record<string, readonly [z.ZodType, string]>;

type Values = { readonly [K in keyof typeof FIELDS]: z.output<(typeof FIELDS)[K][0]> };

/** A checked command line. */
export interface Settings extends Omit<Values, 'null'> {
  readonly inputs: readonly string[];
  /** Paths on standard input end in NUL. */
  readonly nul: boolean;
}

const flagOf = (key: string) => `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/**
 * Checks the options of a command line, each by itself and in combination.
 *
 * @throws UsageError, one sentence naming the option, what was got and what was wanted.
 */
export function readSettings(
  inputs: readonly string[],
  options: Readonly<Record<string, unknown>>,
): Settings {
  const entries = Object.entries(FIELDS).map(([key, [schema, wanted]]) => {
    const result = schema.safeParse(options[key]);
    if (!result.success) throw new UsageError(`${flagOf(key)}: wanted ${wanted}, got "${options[key]}"`);
    return [key, result.data];
  });
  const { null: nul, ...values } = Object.fromEntries(entries) as Values;
  const settings = { ...values, nul, inputs: nul && !inputs.includes('-') ? [...inputs, '-'] : inputs };
  checkTogether(settings);
  return settings;
}

function checkTogether(settings: Settings): void {
  const { inputs, strategy, nSamples, toKeep, output } = settings;
  const refuse = (message: string) => {
    throw new UsageError(message);
  };
  if (inputs.length === 0)
    refuse(
      'no INPUT: wanted image files, folders, patterns, or - for paths on standard input (--help says more)',
    );
  if (inputs.filter((input) => input === '-').length > 1) refuse('-: standard input can be read only once');
  if (strategy === 'staged' && !(nSamples && toKeep))
    refuse('--strategy staged wants --n-samples and --to-keep, such as --n-samples 50,500 --to-keep 5,1');
  if (strategy !== 'staged' && (nSamples || toKeep))
    refuse('--n-samples and --to-keep belong to --strategy staged');
  if (nSamples && toKeep && nSamples.length !== toKeep.length)
    refuse(`--n-samples has ${nSamples.length} stages, --to-keep ${toKeep.length}`);
  if (strategy !== 'sequential' && settings.confidence !== undefined)
    refuse('--confidence belongs to --strategy sequential');
  if (settings.timesteps && settings.sigmas) refuse('--timesteps and --sigmas exclude each other');
  if (settings.prompts && settings.labels) refuse('--prompts and --labels exclude each other');
  if (settings.template && !settings.labels) refuse('--template wants --labels to fill in');
  if (settings.resume && output === '-') refuse('--resume wants --output FILE to read what is done');
  if (settings.errors !== undefined && settings.errors === output)
    refuse('--errors and --output are the same file');
}
