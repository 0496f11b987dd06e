// Options about results: what they hold, and where they are written.

import { z } from 'zod';
import type { OptionSet } from '../../option.ts';
import { count, flag, integer, text } from '../../option-schemas.ts';

/** Levels of what is logged to standard error, from least to most. */
export const LOG_LEVELS = ['silent', 'error', 'warn', 'info', 'debug'] as const;

/** One of `LOG_LEVELS`. */
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Formats of results. */
export const FORMATS = ['jsonl', 'csv', 'text'] as const;

/** One of `FORMATS`. */
export type Format = (typeof FORMATS)[number];

export const OUTPUT = {
  out: {
    flags: '--out <folder>',
    help: 'the folder that images are written to, as PNG',
    schema: text,
    expected: 'a folder',
  },
  cardOut: {
    flags: '--out <file|folder>',
    help: 'store the temperature there: in a new card (FILE.json), or in a copy of the model folder',
    schema: text,
    expected: 'a .json file or a folder',
  },
  inPlace: {
    flags: '--in-place',
    help: "store the temperature in the model folder's own card.json; the card as it was is kept as card.json.bak",
    ...flag,
  },
  tensors: {
    flags: '--tensors <file>',
    help: 'also write the images there as safetensors, [c, h, w] in [-1, 1] by their names',
    schema: text,
    expected: 'a file',
  },
  output: {
    flags: '-o, --output <file>',
    help: 'where results go; - is standard output',
    schema: text,
    expected: 'a file, or - for standard output',
    fallback: '-',
  },
  format: {
    flags: '--format <name>',
    help: 'jsonl, csv or text; by default text on a terminal, otherwise by the extension of --output (.csv, .txt), otherwise jsonl',
    schema: z.enum(FORMATS),
    expected: 'jsonl, csv or text',
  },
  order: {
    flags: '--order <name>',
    help: 'completion (each result as soon as it is ready) or input (in the order of the inputs)',
    schema: z.enum(['completion', 'input']),
    expected: 'completion or input',
    fallback: 'completion',
  },
  timings: {
    flags: '--timings',
    help: 'results have the seconds that each image took; without it equal seeds give equal bytes',
    ...flag,
  },
  topK: {
    flags: '--top-k <k>',
    help: 'classes listed with a result',
    ...count,
    fallback: '5',
  },
  energy: {
    flags: '--energy',
    help: 'results have energies: -log p(x), and -log p(x | class) in top, up to a constant; high for images unlike the training data; needs --strategy all, or staged (over the levels of its first stage)',
    ...flag,
  },
  errors: {
    flags: '--errors <file>',
    help: 'also write every single evaluation there, as JSON lines',
    schema: text,
    expected: 'a file',
  },
  resume: {
    flags: '--resume',
    help: 'skip the images that have a result in --output, and try failed ones again; needs the settings of the earlier run',
    ...flag,
  },
  overwrite: {
    flags: '--overwrite',
    help: 'replace what --output already holds',
    ...flag,
  },
  bins: {
    flags: '--bins <n>',
    help: 'bins of the reliability table',
    schema: integer(1, 1000),
    expected: 'an integer from 1 to 1000',
    fallback: '15',
  },
  lineFormat: {
    flags: '--format <name>',
    help: 'jsonl, which results always are; with --dry-run, one JSON object instead of text',
    schema: z.enum(['jsonl']),
    expected: 'jsonl',
  },
  reportFormat: {
    flags: '--format <name>',
    help: 'text, or json: one JSON object',
    schema: z.enum(['text', 'json', 'jsonl']).transform((name) => (name === 'text' ? 'text' : 'json')),
    expected: 'text or json',
    fallback: 'text',
  },
  printOnly: {
    flags: '--print-only',
    help: 'only print the temperature, store nothing',
    ...flag,
  },
  dryRun: {
    flags: '--dry-run',
    help: 'only estimate how much work the run is, and how long it takes on this machine',
    ...flag,
  },
  quiet: {
    flags: '-q, --quiet',
    help: 'no progress, errors only',
    ...flag,
  },
  logLevel: {
    flags: '--log-level <level>',
    help: `what goes to standard error: ${LOG_LEVELS.join(', ')}`,
    schema: z.enum(LOG_LEVELS),
    expected: LOG_LEVELS.join(', '),
    fallback: 'info',
  },
} as const satisfies OptionSet;
