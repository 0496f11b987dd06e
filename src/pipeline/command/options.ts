// Every option of every command, once: how it is typed, what its help says, what it may hold. A command picks
// those it has by name.

import { type Command, Option } from 'commander';
import { parse } from 'csv-parse/sync';
import { z } from 'zod';
import { ATTACKS } from '../attacking/attacks.ts';
import { GRADIENT_MODES } from '../attacking/purified.ts';
import { UsageError } from '../errors.ts';
import { METHODS, NORMS, T_STAR } from '../purifying/methods.ts';
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

/** A size above 0, also as a quotient: 0.5, 1e-2, 8/255. */
const quotient = z
  .string()
  .regex(/^[\d.]+(e[+-]?\d+)?(\/[\d.]+)?$/i)
  .transform((text) => text.split('/').map(Number))
  .transform(([above = Number.NaN, below = 1]) => above / below)
  .refine((x) => x > 0 && Number.isFinite(x));

const sizes = z
  .string()
  .transform((text) => text.split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part))))
  .refine((list) => list.every((x) => x > 0 && Number.isFinite(x)));

const text = z.string().min(1);
const flag = z.boolean();

interface Spec<T extends z.ZodType> {
  /** As commander reads it. */
  readonly flags: string;
  readonly group: 'Model' | 'Deciding' | 'Purifying' | 'Attacking' | 'Output' | 'Running';
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

/** Options that several commands have under names of their own. */
const purifyingMethod = {
  schema: z.enum(METHODS),
  wanted: METHODS.join(', '),
};
const stepCount = { schema: integer(1, 10_000), wanted: 'an integer from 1 to 10000' };
const radius = { schema: quotient, wanted: 'a number above 0 such as 8/255 or 0.5' };
const ballNorm = { schema: z.enum(NORMS), wanted: NORMS.join(' or ') };
const sigmaList = { schema: sizes, wanted: 'numbers above 0, separated by commas' };
const startingTime = {
  schema: z.union([
    z
      .string()
      .refine((name) => Object.hasOwn(T_STAR, name))
      .transform((name) => T_STAR[name]!),
    integer(1, 1000),
  ]),
  wanted: `an integer from 1 to 1000, or one of ${Object.keys(T_STAR).join(', ')}`,
};

/** All options, by the names their values have here; two that are typed alike belong to different commands. */
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
  config: given({
    group: 'Model',
    flags: '--config <file>',
    help: 'arguments of EDMPrecond as JSON, for what the file does not say of its network',
    schema: text,
    wanted: 'a JSON file',
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
    help: 'noise levels of a continuous model: linspace:A:B:N (the last only ends the integral of a weighting), importance:N or importance:A:B:N (placed by the weighting), or A,B,C,...',
    schema: z.string().regex(/^(linspace|importance):|^[\d.]/),
    wanted: 'linspace:A:B:N, importance:N, importance:A:B:N, or sigmas separated by commas',
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
    help: 'weight of a noise level: uniform, rdc-code, lognormal, elbo, or a file of weights for the ascending grid',
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
  method: given({
    ...purifyingMethod,
    group: 'Purifying',
    flags: '--method <name>',
    help: `how images are purified: ${METHODS.join(', ')}`,
  }),
  steps: given({
    ...stepCount,
    group: 'Purifying',
    flags: '--steps <n>',
    help: 'steps of an image',
  }),
  eps: given({
    ...radius,
    group: 'Purifying',
    flags: '--eps <radius>',
    help: 'how far an image may move, for pixels in [0, 1]: 8/255, 0.5',
  }),
  norm: given({
    ...ballNorm,
    group: 'Purifying',
    flags: '--norm <name>',
    help: 'in which norm --eps counts: linf or l2 (linf)',
  }),
  stepSize: given({
    ...radius,
    group: 'Purifying',
    flags: '--step-size <size>',
    help: "size of a step, for pixels in [-1, 1] (Adam's learning rate, or the length of a step)",
  }),
  stepSigmas: given({
    ...sigmaList,
    group: 'Purifying',
    flags: '--sigmas <list>',
    help: 'the sigma of every step: 0.41,0.47,...',
  }),
  tStar: given({
    ...startingTime,
    group: 'Purifying',
    flags: '--t-star <t|name>',
    help: `diffpure: the timestep, of 1000, that images are noised to; or as published for ${Object.keys(T_STAR).join(', ')}`,
  }),
  purify: given({
    ...purifyingMethod,
    group: 'Purifying',
    flags: '--purify <method>',
    help: `purify the images first: ${METHODS.join(', ')}`,
  }),
  purifySteps: given({
    ...stepCount,
    group: 'Purifying',
    flags: '--purify-steps <n>',
    help: 'steps of an image',
  }),
  purifyEps: given({
    ...radius,
    group: 'Purifying',
    flags: '--purify-eps <radius>',
    help: 'how far purifying may move an image, for pixels in [0, 1]: 8/255, 0.5',
  }),
  purifyNorm: given({
    ...ballNorm,
    group: 'Purifying',
    flags: '--purify-norm <name>',
    help: 'in which norm --purify-eps counts: linf or l2 (linf)',
  }),
  purifyStepSize: given({
    ...radius,
    group: 'Purifying',
    flags: '--purify-step-size <size>',
    help: "size of a step, for pixels in [-1, 1] (Adam's learning rate, or the length of a step)",
  }),
  purifySigmas: given({
    ...sigmaList,
    group: 'Purifying',
    flags: '--purify-sigmas <list>',
    help: 'the sigma of every step: 0.41,0.47,...',
  }),
  purifyTStar: given({
    ...startingTime,
    group: 'Purifying',
    flags: '--purify-t-star <t|name>',
    help: `diffpure: the timestep, of 1000, that images are noised to; or as published for ${Object.keys(T_STAR).join(', ')}`,
  }),
  purifyNoise: given({
    group: 'Purifying',
    flags: '--purify-noise <file>',
    help: 'noise of the steps from a safetensors file: tensor "noise" [n, c, h, w]',
    schema: text,
    wanted: 'a safetensors file',
  }),
  attack: spec({
    group: 'Attacking',
    flags: '--attack <name>',
    help: `how images are attacked: ${ATTACKS.join(', ')}; -t are targeted`,
    schema: z.enum(ATTACKS),
    wanted: ATTACKS.join(', '),
    fallback: 'apgd-ce',
  }),
  attacks: spec({
    group: 'Attacking',
    flags: '--attacks <list>',
    help: `attacks of every image, each by itself: ${ATTACKS.join(', ')}; or none`,
    schema: z
      .string()
      .transform((list) => (list === 'none' ? [] : list.split(',').map((name) => name.trim())))
      .pipe(z.array(z.enum(ATTACKS)).refine((list) => new Set(list).size === list.length)),
    wanted: `different names of ${ATTACKS.join(', ')}, separated by commas, or none`,
    fallback: 'apgd-ce,apgd-t',
  }),
  attackSteps: given({
    ...stepCount,
    group: 'Attacking',
    flags: '--steps <n>',
    help: 'steps of a run (100); queries of square (5000)',
  }),
  restarts: given({
    group: 'Attacking',
    flags: '--restarts <n>',
    help: 'runs from different points (1); targets of a targeted attack (9)',
    schema: integer(1, 10_000),
    wanted: 'an integer from 1 to 10000',
  }),
  eot: spec({
    group: 'Attacking',
    flags: '--eot <n>',
    help: "draws of the defence's randomness that a gradient is the mean of",
    schema: integer(1, 10_000),
    wanted: 'an integer from 1 to 10000',
    fallback: '1',
  }),
  randomness: spec({
    group: 'Attacking',
    flags: '--randomness <name>',
    help: "whether the attacker knows the defence's random numbers: known, or fresh ones in every step",
    schema: z.enum(['known', 'fresh']),
    wanted: 'known or fresh',
    fallback: 'known',
  }),
  attackStepSize: given({
    ...radius,
    group: 'Attacking',
    flags: '--step-size <size>',
    help: 'pgd: size of a step, for pixels in [0, 1] (2.5 eps / steps)',
  }),
  levelsPerStep: given({
    group: 'Attacking',
    flags: '--levels-per-step <n>',
    help: 'noise levels that a draw of the attack sees, in turn; what it finds is judged by all (all)',
    schema: integer(1),
    wanted: 'an integer of 1 or more',
  }),
  gradient: given({
    group: 'Attacking',
    flags: '--gradient <mode>',
    help: 'gradient of --purify: identity (BPDA), full (through every step), or transfer (attack without it) (identity)',
    schema: z.enum(GRADIENT_MODES),
    wanted: GRADIENT_MODES.join(', '),
  }),
  labelsFrom: spec({
    group: 'Attacking',
    flags: '--labels-from <file|folders>',
    help: 'true classes: a CSV file path,label, or the names of the folders that images are in',
    schema: text,
    wanted: 'a CSV file, or folders',
    fallback: 'folders',
  }),
  labelsCsv: given({
    group: 'Attacking',
    flags: '--labels-csv <file>',
    help: 'images and their classes: CSV path,label, paths relative to FOLDER',
    schema: text,
    wanted: 'a CSV file',
  }),
  images: given({
    group: 'Attacking',
    flags: '--images <n>',
    help: 'how many images; of class folders as many of each class',
    schema: integer(1),
    wanted: 'an integer of 1 or more',
  }),
  out: given({
    group: 'Output',
    flags: '--out <folder>',
    help: 'the folder that images are written to, as PNG',
    schema: text,
    wanted: 'a folder',
  }),
  tensors: given({
    group: 'Output',
    flags: '--tensors <file>',
    help: 'also write the images there as safetensors, [c, h, w] in [-1, 1] by their names',
    schema: text,
    wanted: 'a file',
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
  energy: spec({
    group: 'Output',
    flags: '--energy',
    help: 'results have energies: -log p(x), and -log p(x | class) in top, up to a constant; high for what is unlike the training data; wants --strategy all, or staged (then over the levels of its first stage)',
    schema: flag,
    wanted: 'no value',
    fallback: false,
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
  perClass: given({
    group: 'Running',
    flags: '--per-class <n>',
    help: 'take at most so many images of each class, the first',
    schema: integer(1),
    wanted: 'an integer of 1 or more',
  }),
  heldOut: spec({
    group: 'Deciding',
    flags: '--held-out <fraction>',
    help: 'part of every class that is not fitted to, but judged with',
    schema: fraction,
    wanted: 'a number between 0 and 1',
    fallback: '0.5',
  }),
  bins: spec({
    group: 'Output',
    flags: '--bins <n>',
    help: 'bins of the reliability table',
    schema: integer(1, 1000),
    wanted: 'an integer from 1 to 1000',
    fallback: '15',
  }),
  dry: spec({
    group: 'Output',
    flags: '--dry',
    help: 'print only, store nothing',
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
    const { flags, schema, wanted, fallback }: Spec<z.ZodType> = OPTIONS[name];
    const option = new Option(flags);
    const value = typed[option.attributeName()];
    const result = schema.safeParse(value ?? fallback);
    if (!result.success) throw new UsageError(`${option.long}: wanted ${wanted}, got "${value}"`);
    return [name, result.data];
  });
  return Object.fromEntries(entries) as Values<Name>;
}
