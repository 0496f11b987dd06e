// Names the images that are written: the path of an image below --out is its path below the input folder.

import { stat } from 'node:fs/promises';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { UsageError } from '../../../errors.ts';
import { findBelow, isImage, type NamedImage } from '../../node/sources.ts';
import { systemPath } from '../../node/system-path.ts';
import type { ItemFailure } from '../../types.ts';
import { identityOf, realPath } from './output-file.ts';
import { passedOverFiles } from './passed-over.ts';
import { PathSet } from './path-set.ts';
import type { Surroundings } from './subcommand.ts';

/**
 * Characters that are unfit for the name of a new file: control characters and characters that reorder text, which a
 * terminal would obey; bytes that are not UTF-8; and angle brackets, which a web page would take for tags.
 */
const UNFIT = /[\p{Cc}<>\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu;

/**
 * Returns a function that names the image of a path that was found below a root: the part of the path below the root (for
 * a file that was named itself, the file's name), with `/` between folders and `_` for each character that is unfit for a
 * name. If another image has taken that name, folders above are put in front until it differs, and at last a number is
 * added. So a name depends only on the images that were found before, in the order of the inputs.
 */
export function outputNames(): (path: string, root: string) => string {
  const taken = new PathSet();
  return (path, root) => {
    const whole = resolve(path).split(sep).filter(Boolean);
    const own = relative(resolve(root), resolve(path)).split(sep).length;
    for (let parts = own; parts <= whole.length; parts++) {
      const name = whole.slice(-parts).join('/').replaceAll(UNFIT, '_');
      if (taken.add(pngName(name))) return name;
    }
    for (let number = 2; ; number++) {
      const name = [...whole.slice(0, -1), numbered(whole.at(-1)!, number)].join('/').replaceAll(UNFIT, '_');
      if (taken.add(pngName(name))) return name;
    }
  };
}

const numbered = (file: string, number: number) =>
  file.replace(/(\.[^.]*)?$/, (ending) => ` ${number}${ending}`);

/** Returns the name of the PNG file for a name: .png is appended unless the name has it. */
export const pngName = (name: string): string => (/\.png$/i.test(name) ? name : `${name}.png`);

/** Returns whether a path is a folder itself or lies in it. */
export function isBeneath(path: string, folder: string): boolean {
  const way = relative(resolve(folder), resolve(path));
  return way === '' || !(way === '..' || way.startsWith(`..${sep}`) || way.startsWith('/'));
}

/** An image that was found, the folder that the input named (see `findBelow`), and the name of what is made of it. */
export interface NamedInput {
  readonly path: string;
  /** The image: its path, or what was found in an archive. */
  readonly image: string | NamedImage;
  readonly root: string;
  readonly name: string;
}

/** Returns the files that the command line names, by their identities, and the folders with their links resolved. */
async function namedThemselves(inputs: readonly string[]) {
  const files = new Map<string, string>();
  const folders: string[] = [];
  for (const input of inputs) {
    const info = await stat(systemPath(input)).catch(() => undefined);
    if (info?.isDirectory()) folders.push(await realPath(input));
    const identity = info?.isFile() ? await identityOf(input) : undefined;
    if (identity !== undefined) files.set(identity, input);
  }
  return { files, folders };
}

/**
 * Yields the images of the inputs, each with its name below `out`, where it is written as `pngName(name)`. Files that
 * already lie in `out` are no inputs, unless the command line names them.
 *
 * @throws UsageError if an input would be written over, or an image written into a folder that is read.
 */
export async function* namedInputs(
  { inputs, nul, out }: { readonly inputs: readonly string[]; readonly nul: boolean; readonly out: string },
  { stdin, reporter }: Pick<Surroundings, 'stdin' | 'reporter'>,
): AsyncGenerator<NamedInput | ItemFailure> {
  const refuse = (what: string): never => {
    throw new UsageError(`--out: ${what} would be written over; expected a folder apart from the inputs`);
  };
  const nameOf = outputNames();
  const realOut = await realPath(out);
  const { files, folders } = await namedThemselves(inputs);
  const readFolders = folders.filter((folder) => folder === realOut || !isBeneath(realOut, folder));
  if (readFolders.includes(realOut)) refuse(`${out} is an input too, and its images`);
  const passedOver = passedOverFiles();
  const all = findBelow(inputs, { stdin, nul, onPassedOver: passedOver.add });
  for await (const { found, root } of all) {
    if (!isImage(found)) {
      yield found;
      continue;
    }
    const path = typeof found === 'string' ? found : found.path;
    // An image in an archive lies where its archive lies.
    const place = await realPath(dirname(path));
    if (isBeneath(place, realOut) && !isBeneath(await realPath(root), realOut)) {
      reporter.log('debug', `${path}: is in --out, so it is not an input`);
      continue;
    }
    const name = nameOf(path, root);
    const target = join(realOut, pngName(name));
    const identity = await identityOf(target);
    if (identity !== undefined && identity === (await identityOf(path))) refuse(path);
    if (identity !== undefined && files.has(identity)) refuse(`the input ${files.get(identity)}`);
    if (readFolders.some((folder) => isBeneath(target, folder)))
      refuse(`${target} is in an input folder and`);
    yield { path, image: found, root, name };
  }
  const sentence = passedOver.sentence();
  if (sentence) reporter.log('info', sentence);
}
