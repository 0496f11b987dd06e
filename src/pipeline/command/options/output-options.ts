// Options that say what comes out, and where it goes.

import { z } from 'zod';
import { flag, integer, optionsOf, text } from './option.ts';

/** Levels of what is logged to standard error, from least to most. */
export const LOG_LEVELS = ['silent', 'error', 'warn', 'info', 'debug'] as const;

/** One of `LOG_LEVELS`. */
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Formats of results. */
export const FORMATS = ['jsonl', 'csv', 'text'] as const;

/** One of `FORMATS`. */
export type Format = (typeof FORMATS)[number];

const { given, spec } = optionsOf('Output');

export const OUTPUT = {
  out: given({
    flags: '--out <folder>',
    help: 'the folder that images are written to, as PNG',
    schema: text,
    wanted: 'a folder',
  }),
  cardOut: given({
    flags: '--out <file|folder>',
    help: 'store the temperature there: in a new card (FILE.json), or in a copy of the model folder',
    schema: text,
    wanted: 'a .json file or a folder',
  }),
  inPlace: spec({
    flags: '--in-place',
    help: "store the temperature in the model folder's own card.json; the card as it was is kept as card.json.bak",
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  tensors: given({
    flags: '--tensors <file>',
    help: 'also write the images there as safetensors, [c, h, w] in [-1, 1] by their names',
    schema: text,
    wanted: 'a file',
  }),
  output: spec({
    flags: '-o, --output <file>',
    help: 'where results go; - is standard output',
    schema: text,
    wanted: 'a file, or - for standard output',
    fallback: '-',
  }),
  format: given({
    flags: '--format <name>',
    help: 'jsonl, csv or text; without it text on a terminal, else what the name of --output says (.csv, .txt), else jsonl',
    schema: z.enum(FORMATS),
    wanted: 'jsonl, csv or text',
  }),
  order: spec({
    flags: '--order <name>',
    help: 'completion (as soon as a result is there) or input (in the order of the inputs)',
    schema: z.enum(['completion', 'input']),
    wanted: 'completion or input',
    fallback: 'completion',
  }),
  timings: spec({
    flags: '--timings',
    help: 'results have the seconds that each image took; without it equal seeds give equal bytes',
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  topK: spec({
    flags: '--top-k <k>',
    help: 'classes listed with a result',
    schema: integer(1),
    wanted: 'an integer of 1 or more',
    fallback: '5',
  }),
  energy: spec({
    flags: '--energy',
    help: 'results have energies: -log p(x), and -log p(x | class) in top, up to a constant; high for what is unlike the training data; wants --strategy all, or staged (then over the levels of its first stage)',
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  errors: given({
    flags: '--errors <file>',
    help: 'also write every single evaluation there, as JSON lines',
    schema: text,
    wanted: 'a file',
  }),
  resume: spec({
    flags: '--resume',
    help: 'skip the images that have a result in --output, and try failed ones again; wants the settings of the earlier run',
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  overwrite: spec({
    flags: '--overwrite',
    help: 'replace what --output already holds',
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  bins: spec({
    flags: '--bins <n>',
    help: 'bins of the reliability table',
    schema: integer(1, 1000),
    wanted: 'an integer from 1 to 1000',
    fallback: '15',
  }),
  dry: spec({
    flags: '--dry',
    help: 'only print the temperature, store nothing',
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  json: spec({
    flags: '--json',
    help: 'one JSON object instead of text',
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  dryRun: spec({
    flags: '--dry-run',
    help: 'only say how much work the run is, and how long it will take on this machine',
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  quiet: spec({
    flags: '-q, --quiet',
    help: 'no progress, errors only',
    schema: flag,
    wanted: 'no value',
    fallback: false,
  }),
  logLevel: spec({
    flags: '--log-level <level>',
    help: `what goes to standard error: ${LOG_LEVELS.join(', ')}`,
    schema: z.enum(LOG_LEVELS),
    wanted: LOG_LEVELS.join(', '),
    fallback: 'info',
  }),
} as const;
