// The names of images that are written for images that were read: beneath a folder as they were beneath theirs.

import { relative, resolve, sep } from 'node:path';
import { PathSet } from './pathset.ts';

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
