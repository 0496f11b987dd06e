// Options about purifying. What a single purification can be given is declared by its entry (see purifying/methods.ts).

import { type OptionSet, optionsOf } from '../../option.ts';
import { choice, text } from '../../option-schemas.ts';
import { METHODS, PURIFICATIONS } from '../../purifying/methods.ts';
import type { PurificationEntry } from '../../purifying/purification-entry.ts';

/** What flags of a purification's options begin with: `--purify-` in commands that also do something else. */
export type Prefix = '--' | '--purify-';

/** Returns the options that purifications declare, under flags with a prefix. */
export const purificationOptions = (
  prefix: Prefix,
  entries: readonly PurificationEntry[] = PURIFICATIONS,
): OptionSet =>
  Object.fromEntries(
    Object.entries(optionsOf(entries)).map(([name, option]) => [
      name,
      { ...option, flags: option.flags.replace('--', prefix) },
    ]),
  );

export const PURIFYING = {
  method: {
    ...choice(METHODS),
    flags: '--method <name>',
    help: `how images are purified: ${METHODS.join(', ')}`,
  },
  purify: {
    ...choice(METHODS),
    flags: '--purify <method>',
    help: `purify the images first: ${METHODS.join(', ')}`,
  },
  purifyNoise: {
    flags: '--purify-noise <file>',
    help: 'take the noise of the steps from a safetensors file: tensor "noise" [n, c, h, w]',
    schema: text,
    expected: 'a safetensors file',
  },
} as const satisfies OptionSet;
