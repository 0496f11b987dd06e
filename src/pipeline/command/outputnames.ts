// Images that are read, and the names of those written for them: beneath a folder as they were beneath theirs.

import { relative, resolve, sep } from 'node:path';
import { UsageError } from '../errors.ts';
import { findPlaced, isImage, type NamedImage } from '../images/sources.ts';
import type { ItemFailure } from '../types.ts';
import { PathSet } from './pathset.ts';
import type { Surroundings } from './run.ts';

/**
 * Names for paths found beneath roots, with `/` between folders: what a path is beneath its root (a file's own name,
 * for one that was named itself). Where that is taken, by another input's, as many of the folders above are put in
 * front as tell it apart, and at last a number: so names depend on what was found before, in the order of the inputs,
 * and on nothing else.
 */
export function outputNames(): (path: string, root: string) => string {
  const taken = new PathSet();
  return (path, root) => {
    const whole = resolve(path).split(sep).filter(Boolean);
    const own = relative(resolve(root), resolve(path)).split(sep).length;
    for (let parts = own; parts <= whole.length; parts++) {
      const name = whole.slice(-parts).join('/');
      if (taken.add(pngName(name))) return name;
    }
    for (let number = 2; ; number++) {
      const name = [...whole.slice(0, -1), numbered(whole.at(-1)!, number)].join('/');
      if (taken.add(pngName(name))) return name;
    }
  };
}

const numbered = (file: string, number: number) =>
  file.replace(/(\.[^.]*)?$/, (ending) => ` ${number}${ending}`);

/** The PNG file of a name: itself, or with the ending behind it where it has another. */
export const pngName = (name: string): string => (/\.png$/i.test(name) ? name : `${name}.png`);

/** Whether a path is a folder itself or beneath it. */
export function isBeneath(path: string, folder: string): boolean {
  const way = relative(resolve(folder), resolve(path));
  return way === '' || !(way === '..' || way.startsWith(`..${sep}`) || way.startsWith('/'));
}

/** An image that was found, the folder that the input named (see `findPlaced`), and the name of what is made of it. */
export interface NamedInput {
  readonly path: string;
  /** The image: its path, or what was found in an archive. */
  readonly image: string | NamedImage;
  readonly root: string;
  readonly name: string;
}

/**
 * The images that inputs name, each with its name beneath `out`, where it is written as `pngName(name)`. What lies
 * beneath `out` already is no input, unless it was named itself.
 *
 * @throws UsageError for an image that would be written over.
 */
export async function* namedInputs(
  { inputs, nul, out }: { readonly inputs: readonly string[]; readonly nul: boolean; readonly out: string },
  { stdin, reporter }: Pick<Surroundings, 'stdin' | 'reporter'>,
): AsyncGenerator<NamedInput | ItemFailure> {
  const nameOf = outputNames();
  for await (const { found, root } of findPlaced(inputs, { stdin, nul })) {
    if (!isImage(found)) {
      yield found;
      continue;
    }
    const path = typeof found === 'string' ? found : found.path;
    if (isBeneath(path, out) && !isBeneath(root, out)) {
      reporter.log('debug', `${path}: is in --out, and no input`);
      continue;
    }
    const name = nameOf(path, root);
    if (resolve(out, pngName(name)) === resolve(path))
      throw new UsageError(`--out: ${path} would be written over; wanted another folder than the input's`);
    yield { path, image: found, root, name };
  }
}
