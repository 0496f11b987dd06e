// Every option of every command, once: how it is typed, what its help says, what it may hold. A command picks
// those it has by name.

import { type Command, Option } from 'commander';
import { parse } from 'csv-parse/sync';
import { z } from 'zod';
import { UsageError } from '../errors.ts';
import { DEFAULT_MODEL } from './modelfolder.ts';
import { PRESETS } from './presets.ts';

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

const text = z.string().min(1);
const flag = z.boolean();

interface Spec<T extends z.ZodType> {
  /** As commander reads it. */
  readonly flags: string;
  readonly group: 'Model' | 'Deciding' | 'Output' | 'Running';
  readonly help: string;
  readonly schema: T;
  /** What it may be, for people. */
  readonly wanted: string;
  /** What counts where it is not given. */
  readonly fallback?: string | false;
  /** May be given several times. */
  readonly several?: true;
}

const spec = <T extends z.ZodType>(one: Spec<T>): Spec<T> => one;
const given = <T extends z.ZodType>(one: Spec<T>) => spec({ ...one, schema: one.schema.optional() });

/** All options by the names commander gives their values. */
export const OPTIONS = {
  model: spec({
    group: 'Model',
    flags: '--model <dir|name>',
    help: 'a model folder, or the name of a shipped model',
    schema: text,
    wanted: 'a model folder or the name of a shipped model',
    fallback: DEFAULT_MODEL,
  }),
  labels: given({
    group: 'Model',
    flags: '--labels <names>',
    help: 'choose between these classes: A,B,...; a text model takes any names',
    schema: names,
    wanted: 'names separated by commas',
  }),
  template: given({
    group: 'Model',
    flags: '--template <text>',
    help: 'text models: prompt of a label ("a photo of a {}."); several times: several prompts a class, the best counts',
    schema: z.array(z.string().includes('{}')),
    wanted: 'a text with {} in the place of the name',
    several: true,
  }),
  prompts: given({
    group: 'Model',
    flags: '--prompts <file>',
    help: 'candidates from a CSV file: prompt,classname,classidx, a row each',
    schema: text,
    wanted: 'a CSV file',
  }),
  imageSize: given({
    group: 'Model',
    flags: '--image-size <n>',
    help: 'side the image is resized and cropped to (pixel models have their own)',
    schema: integer(1, 65_536),
    wanted: 'an integer of 1 or more',
  }),
  preset: given({
    group: 'Deciding',
    flags: '--preset <name>',
    help: 'several options at once, those given as well win (the list is below)',
    schema: z.string().refine((name) => Object.hasOwn(PRESETS, name)),
    wanted: Object.keys(PRESETS).join(', '),
  }),
  strategy: spec({
    group: 'Deciding',
    flags: '--strategy <name>',
    help: 'how candidates are dropped: sequential, staged or all',
    schema: z.enum(['sequential', 'staged', 'all']),
    wanted: 'sequential, staged or all',
    fallback: 'sequential',
  }),
  confidence: given({
    group: 'Deciding',
    flags: '--confidence <p>',
    help: 'sequential: decided when the best is at this confidence (0.99)',
    schema: fraction,
    wanted: 'a number between 0 and 1',
  }),
  budget: given({
    group: 'Deciding',
    flags: '--budget <n>',
    help: 'most evaluations for an image',
    schema: integer(1),
    wanted: 'an integer of 1 or more',
  }),
  nSamples: given({
    group: 'Deciding',
    flags: '--n-samples <list>',
    help: 'staged: noise levels of each stage, such as 50,500; the grid is even over as many as the largest',
    schema: integers,
    wanted: 'integers of 1 or more, separated by commas',
  }),
  toKeep: given({
    group: 'Deciding',
    flags: '--to-keep <list>',
    help: 'staged: candidates kept after each stage, such as 5,1',
    schema: integers,
    wanted: 'integers of 1 or more, separated by commas',
  }),
  timesteps: given({
    group: 'Deciding',
    flags: '--timesteps <grid>',
    help: 'noise levels of a discrete model: even:N',
    schema: z.string().startsWith('even:'),
    wanted: 'even:N',
  }),
  sigmas: given({
    group: 'Deciding',
    flags: '--sigmas <grid>',
    help: 'noise levels of a continuous model: linspace:A:B:N',
    schema: z.string().startsWith('linspace:'),
    wanted: 'linspace:A:B:N',
  }),
  loss: given({
    group: 'Deciding',
    flags: '--loss <name>',
    help: 'distance of an evaluation: l2, l1 or huber',
    schema: z.enum(['l2', 'l1', 'huber']),
    wanted: 'l2, l1 or huber',
  }),
  weighting: given({
    group: 'Deciding',
    flags: '--weighting <name|file>',
    help: 'weight of a noise level: uniform, rdc-code, lognormal, elbo, or a file',
    schema: text,
    wanted: 'uniform, rdc-code, lognormal, elbo or a file',
  }),
  seed: spec({
    group: 'Deciding',
    flags: '--seed <n>',
    help: 'seed of the noise',
    schema: integer(0, 2 ** 32 - 1),
    wanted: 'an integer from 0 to 4294967295',
    fallback: '0',
  }),
  noise: given({
    group: 'Deciding',
    flags: '--noise <file>',
    help: 'noise from a safetensors file instead: tensor "noise" [n, c, h, w]',
    schema: text,
    wanted: 'a safetensors file',
  }),
  output: spec({
    group: 'Output',
    flags: '-o, --output <file>',
    help: 'where results go; - is standard output',
    schema: text,
    wanted: 'a file, or - for standard output',
    fallback: '-',
  }),
  format: spec({
    group: 'Output',
    flags: '--format <name>',
    help: 'jsonl or csv',
    schema: z.enum(['jsonl', 'csv']),
    wanted: 'jsonl or csv',
    fallback: 'jsonl',
  }),
  topK: spec({
    group: 'Output',
    flags: '--top-k <k>',
    help: 'classes listed with a result',
    schema: integer(1),
    wanted: 'an integer of 1 or more',
    fallback: '5',
  }),
  errors: given({
    group: 'Output',
    flags: '--errors <file>',
    help: 'also write every single evaluation there, as JSON lines',
    schema: text,
    wanted: 'a file',
  }),
  resume: spec({
    group: 'Output',
    flags: '--resume',
    help: 'skip what --output already holds',
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  json: spec({
    group: 'Output',
    flags: '--json',
    help: 'one JSON object instead of text',
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  dryRun: spec({
    group: 'Output',
    flags: '--dry-run',
    help: 'only say what it would cost: evaluations, memory, and time by one timed batch',
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  quiet: spec({
    group: 'Output',
    flags: '-q, --quiet',
    help: 'no progress, errors only',
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  logLevel: spec({
    group: 'Output',
    flags: '--log-level <level>',
    help: `what goes to standard error: ${LOG_LEVELS.join(', ')}`,
    schema: z.enum(LOG_LEVELS),
    wanted: LOG_LEVELS.join(', '),
    fallback: 'info',
  }),
  null: spec({
    group: 'Running',
    flags: '-0, --null',
    help: 'paths on standard input end in NUL',
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  batch: spec({
    group: 'Running',
    flags: '--batch <n>',
    help: 'evaluations of a dispatch',
    schema: auto,
    wanted: 'auto or an integer of 1 or more',
    fallback: 'auto',
  }),
  concurrency: spec({
    group: 'Running',
    flags: '--concurrency <n>',
    help: 'images in flight',
    schema: auto,
    wanted: 'auto or an integer of 1 or more',
    fallback: 'auto',
  }),
} as const;

/** The name of an option, as in `nSamples`. */
export type OptionName = keyof typeof OPTIONS;

/** The checked values of some options. */
export type Values<Name extends OptionName> = {
  readonly [N in Name]: z.output<(typeof OPTIONS)[N]['schema']>;
};

/** Gives a command some options; those that are not typed have no value. */
export function addOptions(command: Command, names: readonly OptionName[]): Command {
  for (const name of names) {
    const { flags, group, help, fallback, several }: Spec<z.ZodType> = OPTIONS[name];
    const option = new Option(flags, fallback ? `${help} (default: ${fallback})` : help);
    if (several)
      option.argParser((value, before: readonly string[] | undefined) => [...(before ?? []), value]);
    command.addOption(option.helpGroup(`${group}:`));
  }
  return command;
}

const flagOf = (name: string) => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/**
 * The values of some options, each checked by itself.
 *
 * @throws UsageError, one sentence naming the option, what was got and what was wanted.
 */
export function readOptions<Name extends OptionName>(
  names: readonly Name[],
  typed: Readonly<Record<string, unknown>>,
): Values<Name> {
  const entries = names.map((name) => {
    const { schema, wanted, fallback }: Spec<z.ZodType> = OPTIONS[name];
    const result = schema.safeParse(typed[name] ?? fallback);
    if (!result.success) throw new UsageError(`${flagOf(name)}: wanted ${wanted}, got "${typed[name]}"`);
    return [name, result.data];
  });
  return Object.fromEntries(entries) as Values<Name>;
}
