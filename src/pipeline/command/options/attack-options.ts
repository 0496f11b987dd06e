// Options about attacks and robustness. What a single attack can be given is declared by its entry (see attacks.ts).

import { z } from 'zod';
import { ATTACK_ENTRIES, ATTACKS } from '../../attacking/attacks.ts';
import { GRADIENT_MODES } from '../../attacking/purified-classifier.ts';
import { NORMS } from '../../norms.ts';
import type { OptionSet } from '../../option.ts';
import { choice, count, flag, integer, radius, stepCount, text } from '../../option-schemas.ts';

/** Lists the default of a setting for a help text: the commonest one, and the attacks with another. */
function byDefault(setting: 'steps' | 'restarts'): string {
  const usual = ATTACK_ENTRIES[0]!.defaults[setting];
  const others = ATTACK_ENTRIES.filter(({ defaults }) => defaults[setting] !== usual);
  return [usual, ...others.map(({ name, defaults }) => `${name}: ${defaults[setting]}`)].join(', ');
}

export const ATTACKING = {
  attack: {
    flags: '--attack <name>',
    help: `how images are attacked: ${ATTACKS.join(', ')}; -t are targeted`,
    schema: z.enum(ATTACKS),
    expected: ATTACKS.join(', '),
    fallback: 'apgd-ce',
  },
  attacks: {
    flags: '--attacks <list>',
    help: `the attacks to run, in this order: ${ATTACKS.join(', ')}; or none`,
    schema: z
      .string()
      .transform((list) => (list === 'none' ? [] : list.split(',').map((name) => name.trim())))
      .pipe(z.array(z.enum(ATTACKS)).refine((list) => new Set(list).size === list.length)),
    expected: `different names of ${ATTACKS.join(', ')}, separated by commas, or none`,
    fallback: 'apgd-ce,apgd-t',
  },
  eps: {
    ...radius,
    flags: '--eps <radius>',
    help: 'how far an attack may change an image, for pixels in [0, 1]: 8/255, 0.5',
  },
  norm: { ...choice(NORMS), flags: '--norm <name>', help: 'the norm of that distance: linf or l2 (linf)' },
  attackSteps: {
    ...stepCount,
    flags: '--steps <n>',
    help: `steps per run; square: queries per run (${byDefault('steps')})`,
  },
  restarts: {
    flags: '--restarts <n>',
    help: `runs from different starting points; targeted attacks: target classes (${byDefault('restarts')})`,
    schema: integer(1, 10_000),
    expected: 'an integer from 1 to 10000',
  },
  eot: {
    flags: '--eot <n>',
    help: "draws of the defence's randomness that each gradient is averaged over",
    schema: integer(1, 10_000),
    expected: 'an integer from 1 to 10000',
    fallback: '1',
  },
  randomness: {
    flags: '--randomness <name>',
    help: "whether the attacker knows the defence's random numbers: known, or fresh (new ones in every step)",
    schema: z.enum(['known', 'fresh']),
    expected: 'known or fresh',
    fallback: 'known',
  },
  levelsPerStep: {
    flags: '--levels-per-step <n>',
    help: 'noise levels that each draw of the attack uses, in turn; the judge always uses all of them (all)',
    ...count,
  },
  gradient: {
    flags: '--gradient <mode>',
    help: 'gradient of --purify: identity (BPDA), full (through every step), or transfer (attack without it) (identity)',
    schema: z.enum(GRADIENT_MODES),
    expected: GRADIENT_MODES.join(', '),
  },
  truth: {
    flags: '--truth <folders|file>',
    help: 'true classes: folders (the names of the folders that images are in), or a CSV file path,label with paths relative to it',
    schema: text,
    expected: 'folders, or a CSV file',
  },
  everyAttack: {
    flags: '--every-attack',
    help: 'run every attack on every image, also on those that an earlier attack broke',
    ...flag,
  },
  save: {
    flags: '--save <folder>',
    help: 'write every adversarial image there, as PNG and, before it became 8 bits, as safetensors',
    schema: text,
    expected: 'a folder',
  },
  images: {
    flags: '--images <n>',
    help: 'how many images to take (all); from class folders, the same number of each class',
    ...count,
  },
} as const satisfies OptionSet;
