// Options about deciding: the strategy, the noise levels, the distance of an evaluation, the noise.

import { z } from 'zod';
import { STRATEGIES } from '../../deciding/strategies.ts';
import { namesOf, type OptionSet } from '../../option.ts';
import { count, fraction, integer, text } from '../../option-schemas.ts';
import { PRESETS } from './presets.ts';

export const DECIDING = {
  preset: {
    flags: '--preset <name>',
    help: 'several options at once (listed below); explicit options override the preset',
    schema: z.string().refine((name) => Object.hasOwn(PRESETS, name)),
    expected: Object.keys(PRESETS).join(', '),
  },
  strategy: {
    flags: '--strategy <name>',
    help: `when candidates are dropped: ${STRATEGIES.map(({ name, summary }) => `${name} (${summary})`).join(', ')}`,
    schema: z.enum(STRATEGIES.map(({ name }) => name)),
    expected: namesOf(STRATEGIES),
    fallback: 'sequential',
  },
  budget: {
    flags: '--budget <n>',
    help: 'the most evaluations per image',
    ...count,
  },
  timesteps: {
    flags: '--timesteps <grid>',
    help: 'noise levels of a discrete model: even:N',
    schema: z.string().startsWith('even:'),
    expected: 'even:N',
  },
  sigmas: {
    flags: '--sigmas <grid>',
    help: 'noise levels of a continuous model: linspace:A:B:N (the last only ends the integral of a weighting), importance:N or importance:A:B:N (placed by the weighting), or A,B,C,...',
    schema: z.string().regex(/^(linspace|importance):|^[\d.]/),
    expected: 'linspace:A:B:N, importance:N, importance:A:B:N, or sigmas separated by commas',
  },
  loss: {
    flags: '--loss <name>',
    help: 'distance of an evaluation: l2, l1 or huber',
    schema: z.enum(['l2', 'l1', 'huber']),
    expected: 'l2, l1 or huber',
  },
  weighting: {
    flags: '--weighting <name|file>',
    help: 'weight of a noise level: uniform, rdc-code, lognormal, elbo, or a file of weights for the ascending grid',
    schema: text,
    expected: 'uniform, rdc-code, lognormal, elbo or a file',
  },
  seed: {
    flags: '--seed <n>',
    help: 'seed of the noise',
    schema: integer(0, 2 ** 32 - 1),
    expected: 'an integer from 0 to 4294967295',
    fallback: '0',
  },
  noise: {
    flags: '--noise <file>',
    help: 'take the noise from a safetensors file instead: tensor "noise" [n, c, h, w]',
    schema: text,
    expected: 'a safetensors file',
  },
  heldOut: {
    flags: '--held-out <fraction>',
    help: 'share of each class that is held out to judge the fit',
    schema: fraction,
    expected: 'a number between 0 and 1',
    fallback: '0.5',
  },
} as const satisfies OptionSet;
