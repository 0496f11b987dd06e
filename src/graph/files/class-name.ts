// The class that a configuration of diffusers names, `_class_name`.

import { z } from 'zod';

/** The libraries whose classes are known here. */
const LIBRARIES: readonly string[] = ['diffusers', 'transformers'];

/**
 * Returns a class as a name: diffusers writes a class with code of its own as a list of its module and its name, which
 * becomes `module.Name`. The module of a class of the library itself is left out.
 */
const joined = (value: unknown): unknown =>
  Array.isArray(value) && value.length === 2 && value.every((part) => typeof part === 'string')
    ? LIBRARIES.includes(value[0] as string)
      ? value[1]
      : value.join('.')
    : value;

/** Checks a `_class_name` and returns it as one name; `module.Name` if the class has code of its own. */
export const className = z.preprocess(joined, z.string());

/** Returns whether a class has code of its own, which is never run. */
export const isCustom = (name: string | undefined): boolean => name?.includes('.') ?? false;
