// Options about benchmarks: which kernels are timed, a case of one's own, and how two reports are compared.

import { z } from 'zod';
import { OP_NAMES } from '../../../bench/cases.ts';
import { FAMILIES } from '../../../kernels/device/families.ts';
import type { Shape } from '../../../kernels/device/tensor.ts';
import { ACTIVATIONS } from '../../../kernels/elementwise/activation.ts';
import type { OptionSet } from '../../option.ts';
import { choice, count, flag, text } from '../../option-schemas.ts';

/** A list of some names, separated by commas, with its description. */
const listOf = <Name extends string>(names: readonly Name[]) => ({
  schema: z
    .string()
    .transform((list) => list.split(','))
    .pipe(z.array(z.enum(names)).min(1)),
  expected: `names of ${names.join(', ')}, separated by commas`,
});

/** A shape as PyTorch writes it, samples first, turned into the order of the kernels, channels first. */
const shape = z
  .string()
  .regex(/^[1-9]\d*(x[1-9]\d*){1,3}$/)
  .transform((sides): Shape => {
    const [n = 1, c = 1, ...rest] = sides.split('x').map(Number);
    return [c, n, rest.length === 2 ? rest[0]! : 1, rest.at(-1) ?? 1];
  });

/** The sides of a convolution's kernel: one number, or height and width. */
const kernel = z
  .string()
  .regex(/^[1-9]\d*(x[1-9]\d*)?$/)
  .transform((sides): readonly [number, number] => {
    const [height = 1, width = height] = sides.split('x').map(Number);
    return [height, width];
  });

export const TIMING = {
  ops: {
    flags: '--op <names>',
    help: 'time the cases of these ops only (--list names them)',
    ...listOf(OP_NAMES),
  },
  match: {
    flags: '--match <text>',
    help: 'time the cases only whose line in --list contains the text',
    schema: text,
    expected: 'a text',
  },
  families: {
    flags: '--family <names>',
    help: `time these families of kernels (${FAMILIES.join(', ')}); several are shown next to each other, the first one being the base of the ratios`,
    ...listOf(FAMILIES),
  },
  repetitions: {
    flags: '--repetitions <n>',
    help: 'repetitions of each measurement, of which the median and the quartiles are shown',
    ...count,
    fallback: '9',
  },
  list: {
    flags: '--list',
    help: 'list the cases and time none',
    ...flag,
  },
  launches: {
    flags: '--launches',
    help: 'unet: a line for each launch and not for each kernel',
    ...flag,
  },
  json: {
    flags: '--json <file>',
    help: 'also write the results to this file, after each case',
    schema: text,
    expected: 'a file',
  },
} as const satisfies OptionSet;

export const OWN_CASE = {
  shape: {
    flags: '--shape <NxCxHxW>',
    help: 'time one case of one --op with this shape: samples, channels, height, width, such as 8x128x32x32',
    schema: shape,
    expected: 'two to four integers of 1 or more, such as 8x128x32x32 (samples, channels, height, width)',
  },
  channels: {
    flags: '--channels <n>',
    help: 'channels of the output (those of the input)',
    ...count,
  },
  kernel: {
    flags: '--kernel <k|HxW>',
    help: 'sides of the kernel of a convolution (3)',
    schema: kernel,
    expected: 'one or two integers of 1 or more, such as 3 or 1x3',
  },
  stride: {
    flags: '--stride <n>',
    help: 'stride of a convolution (1), or side of a block of depthToSpace and spaceToDepth (2)',
    ...count,
  },
  groups: {
    flags: '--groups <n>',
    help: 'groups of a group norm (the largest divisor of the channels up to 32)',
    ...count,
  },
  heads: {
    flags: '--heads <n>',
    help: 'heads of an attention (of 64 channels each, or one), or of pickHead (10)',
    ...count,
  },
  keys: {
    flags: '--keys <n>',
    help: 'tokens of the keys and values of an attention (those of the queries)',
    ...count,
  },
  entries: {
    flags: '--entries <n>',
    help: 'rows of a table, or samples to pick from (10)',
    ...count,
  },
  activation: {
    flags: '--activation <name>',
    help: `the activation: ${ACTIVATIONS.join(', ')}`,
    ...choice(ACTIVATIONS),
  },
  weights: {
    flags: '--weights <type>',
    help: 'how weights are stored: f32 or f16 (f32)',
    ...choice(['f32', 'f16']),
  },
  residual: {
    flags: '--residual',
    help: 'add a value of the shape of the output',
    schema: z.literal(true),
    expected: 'no value',
  },
  causal: {
    flags: '--causal',
    help: 'an attention in which a token sees only itself and earlier ones',
    schema: z.literal(true),
    expected: 'no value',
  },
  compact: {
    flags: '--compact',
    help: 'transform the weights of a convolution in every run',
    schema: z.literal(true),
    expected: 'no value',
  },
} as const satisfies OptionSet;

export const COMPARING = {
  effect: {
    flags: '--effect <percent>',
    help: 'the smallest change of a median that counts as a difference, in per cent',
    schema: z
      .string()
      .transform(Number)
      .refine((percent) => percent >= 0 && percent < 1000)
      .transform((percent) => percent / 100),
    expected: 'a number of 0 or more',
    fallback: '5',
  },
  failOn: {
    flags: '--fail-on <what>',
    help: 'exit with status 1 if something is slower, or different in either direction',
    ...choice(['slower', 'different']),
  },
} as const satisfies OptionSet;
