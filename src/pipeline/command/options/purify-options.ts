// Options of purifications, under the names of `purify`, and with `purify-` in front for commands that purify before
// they do something else.

import { z } from 'zod';
import { NORMS } from '../../norms.ts';
import type { OptionSet } from '../../option.ts';
import { integer, radius, sizes, stepCount, text } from '../../option-schemas.ts';
import { METHODS, T_STAR } from '../../purifying/methods.ts';

/** Options that several commands have under names of their own. */
const purifyingMethod = {
  schema: z.enum(METHODS),
  expected: METHODS.join(', '),
};
const ballNorm = { schema: z.enum(NORMS), expected: NORMS.join(' or ') };
const sigmaList = { schema: sizes, expected: 'numbers above 0, separated by commas' };
const startingTime = {
  schema: z.union([
    z
      .string()
      .refine((name) => Object.hasOwn(T_STAR, name))
      .transform((name) => T_STAR[name]!),
    integer(1, 1000),
  ]),
  expected: `an integer from 1 to 1000, or one of ${Object.keys(T_STAR).join(', ')}`,
};

export const PURIFYING = {
  method: {
    ...purifyingMethod,
    flags: '--method <name>',
    help: `how images are purified: ${METHODS.join(', ')}`,
  },
  steps: {
    ...stepCount,
    flags: '--steps <n>',
    help: 'steps of an image',
  },
  eps: {
    ...radius,
    flags: '--eps <radius>',
    help: 'how far an image may move, for pixels in [0, 1]: 8/255, 0.5',
  },
  norm: {
    ...ballNorm,
    flags: '--norm <name>',
    help: 'in which norm --eps counts: linf or l2 (linf)',
  },
  stepSize: {
    ...radius,
    flags: '--step-size <size>',
    help: "size of a step, for pixels in [-1, 1] (Adam's learning rate, or the length of a step)",
  },
  stepSigmas: {
    ...sigmaList,
    flags: '--sigmas <list>',
    help: 'the sigma of every step: 0.41,0.47,...',
  },
  tStar: {
    ...startingTime,
    flags: '--t-star <t|name>',
    help: `diffpure: the timestep, of 1000, that images are noised to; or as published for ${Object.keys(T_STAR).join(', ')}`,
  },
  purify: {
    ...purifyingMethod,
    flags: '--purify <method>',
    help: `purify the images first: ${METHODS.join(', ')}`,
  },
  purifySteps: {
    ...stepCount,
    flags: '--purify-steps <n>',
    help: 'steps of an image',
  },
  purifyEps: {
    ...radius,
    flags: '--purify-eps <radius>',
    help: 'how far purifying may move an image, for pixels in [0, 1]: 8/255, 0.5',
  },
  purifyNorm: {
    ...ballNorm,
    flags: '--purify-norm <name>',
    help: 'in which norm --purify-eps counts: linf or l2 (linf)',
  },
  purifyStepSize: {
    ...radius,
    flags: '--purify-step-size <size>',
    help: "size of a step, for pixels in [-1, 1] (Adam's learning rate, or the length of a step)",
  },
  purifySigmas: {
    ...sigmaList,
    flags: '--purify-sigmas <list>',
    help: 'the sigma of every step: 0.41,0.47,...',
  },
  purifyTStar: {
    ...startingTime,
    flags: '--purify-t-star <t|name>',
    help: `diffpure: the timestep, of 1000, that images are noised to; or as published for ${Object.keys(T_STAR).join(', ')}`,
  },
  purifyNoise: {
    flags: '--purify-noise <file>',
    help: 'noise of the steps from a safetensors file: tensor "noise" [n, c, h, w]',
    schema: text,
    expected: 'a safetensors file',
  },
} as const satisfies OptionSet;
