// Options that say how it is decided: the strategy, the noise levels, the distance, the noise.

import { z } from 'zod';
import { fraction, integer, integers, optionsOf, text } from './option.ts';
import { PRESETS } from './presets.ts';

const { given, spec } = optionsOf('Deciding');

export const DECIDING = {
  preset: given({
    flags: '--preset <name>',
    help: 'several options at once, those given as well win (the list is below)',
    schema: z.string().refine((name) => Object.hasOwn(PRESETS, name)),
    wanted: Object.keys(PRESETS).join(', '),
  }),
  strategy: spec({
    flags: '--strategy <name>',
    help: 'how candidates are dropped: sequential, staged or all',
    schema: z.enum(['sequential', 'staged', 'all']),
    wanted: 'sequential, staged or all',
    fallback: 'sequential',
  }),
  confidence: given({
    flags: '--confidence <p>',
    help: 'sequential: decided when the best is at this confidence (0.99)',
    schema: fraction,
    wanted: 'a number between 0 and 1',
  }),
  budget: given({
    flags: '--budget <n>',
    help: 'most evaluations for an image',
    schema: integer(1),
    wanted: 'an integer of 1 or more',
  }),
  nSamples: given({
    flags: '--n-samples <list>',
    help: 'staged: noise levels of each stage, such as 50,500; the grid is even over as many as the largest',
    schema: integers,
    wanted: 'integers of 1 or more, separated by commas',
  }),
  toKeep: given({
    flags: '--to-keep <list>',
    help: 'staged: candidates kept after each stage, such as 5,1',
    schema: integers,
    wanted: 'integers of 1 or more, separated by commas',
  }),
  timesteps: given({
    flags: '--timesteps <grid>',
    help: 'noise levels of a discrete model: even:N',
    schema: z.string().startsWith('even:'),
    wanted: 'even:N',
  }),
  sigmas: given({
    flags: '--sigmas <grid>',
    help: 'noise levels of a continuous model: linspace:A:B:N (the last only ends the integral of a weighting), importance:N or importance:A:B:N (placed by the weighting), or A,B,C,...',
    schema: z.string().regex(/^(linspace|importance):|^[\d.]/),
    wanted: 'linspace:A:B:N, importance:N, importance:A:B:N, or sigmas separated by commas',
  }),
  loss: given({
    flags: '--loss <name>',
    help: 'distance of an evaluation: l2, l1 or huber',
    schema: z.enum(['l2', 'l1', 'huber']),
    wanted: 'l2, l1 or huber',
  }),
  weighting: given({
    flags: '--weighting <name|file>',
    help: 'weight of a noise level: uniform, rdc-code, lognormal, elbo, or a file of weights for the ascending grid',
    schema: text,
    wanted: 'uniform, rdc-code, lognormal, elbo or a file',
  }),
  seed: spec({
    flags: '--seed <n>',
    help: 'seed of the noise',
    schema: integer(0, 2 ** 32 - 1),
    wanted: 'an integer from 0 to 4294967295',
    fallback: '0',
  }),
  noise: given({
    flags: '--noise <file>',
    help: 'noise from a safetensors file instead: tensor "noise" [n, c, h, w]',
    schema: text,
    wanted: 'a safetensors file',
  }),
  heldOut: spec({
    flags: '--held-out <fraction>',
    help: 'share of each class that is held out to judge the fit',
    schema: fraction,
    wanted: 'a number between 0 and 1',
    fallback: '0.5',
  }),
} as const;
