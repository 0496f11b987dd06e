// From what a person types to the paths of images: files, folders, patterns and lists on standard input. All of
// it streams: memory is bounded by the depth of folders and one run of names each, never by how many there are.

import type { Dir, Dirent } from 'node:fs';
import { lstat, opendir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import picomatch from 'picomatch';
import { pathFromBytes } from '../escaping.ts';
import { extensionOf, isImageName } from '../images/extensions.ts';
import { failureOf, fault, systemCode } from '../images/failures.ts';
import type { DecodedImage, EncodedImage } from '../images/image-input.ts';
import { linesOf } from '../images/path-lines.ts';
import { type ItemFailure, isFailure } from '../types.ts';
import { containerKind, imagesInside } from './archives.ts';
import { systemPath } from './system-path.ts';

/** Entries of a folder that are sorted together: smaller folders come in order, larger ones in sorted runs. */
export const SORTED_RUN = 4096;

/** An image out of an archive or a file of records, with a path such as `photos.zip/a.png` or `t10k-idx3.gz#17`. */
export type NamedImage = EncodedImage | DecodedImage;

/**
 * A path to an image, an image that has no file of its own, or what went wrong instead. Bytes of a path that are not
 * UTF-8: see `escaping.ts`.
 */
export type Found = string | NamedImage | ItemFailure;

/** Tells images from failures. */
export const isImage = (found: Found): found is string | NamedImage =>
  typeof found === 'string' || !isFailure(found);

/** What was found, and the folder that the input named: the one itself, a file's, or that beneath which a pattern looks. */
export interface Placed {
  readonly found: Found;
  readonly root: string;
}

/** How inputs are read. */
export interface SourceOptions {
  /** Where `-` reads from; standard input when absent. */
  readonly stdin?: AsyncIterable<Uint8Array>;
  /** Paths on standard input end in NUL instead of a line feed. */
  readonly nul?: boolean;
  /** Images in archives come without their data: enough to count them. */
  readonly namesOnly?: boolean;
  /** Told of every file in a folder or an archive that is left out because its extension is not an image's. */
  readonly onPassedOver?: (path: string) => void;
}

/** Decides by their path which files of a folder are taken. */
type Wanted = (path: string) => boolean;

/** Links that lead nowhere are reported where they could have been an image, or a folder of images. */
const mightMatter = (path: string, error: unknown) =>
  isImageName(path) || (extensionOf(path) === undefined && systemCode(error) !== 'ELOOP');

/** An entry of a folder with its name as text. */
interface Entry {
  readonly name: string;
  readonly entry: Dirent;
}

async function readRun(folder: Dir): Promise<Entry[]> {
  const run: Entry[] = [];
  while (run.length < SORTED_RUN) {
    const entry = await folder.read();
    if (entry === null) break;
    const name = pathFromBytes(entry.name as unknown as Uint8Array); // the folder was opened for bytes
    if (!name.startsWith('.')) run.push({ name, entry });
  }
  return run.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

/** Opens a folder whose names come as bytes: one that is not UTF-8 would come damaged as text. */
const openFolder = (path: string): Promise<Dir> =>
  opendir(systemPath(path) as string, { encoding: 'buffer' as BufferEncoding });

/** Identity of a folder, to notice when links lead back into it. */
async function identity(path: string): Promise<string> {
  const { dev, ino } = await stat(systemPath(path), { bigint: true });
  return `${dev}:${ino}`;
}

async function kindOf(path: string, entry: Dirent): Promise<'file' | 'folder' | 'other'> {
  const entryOrTarget =
    entry.isSymbolicLink() || !(entry.isFile() || entry.isDirectory()) ? await stat(systemPath(path)) : entry;
  return entryOrTarget.isDirectory() ? 'folder' : entryOrTarget.isFile() ? 'file' : 'other';
}

/**
 * The wanted files beneath a folder, depth first. Names that begin with a dot are left out, links are followed,
 * a folder that links lead back into is not entered again. A folder that vanishes or cannot be read is one
 * failed item, and so is an entry that cannot be followed where `reported` says so.
 */
async function* walk(
  path: string,
  wanted: Wanted,
  reported: (path: string, error: unknown) => boolean,
  onPassedOver: (path: string) => void = () => {},
  depth = Number.POSITIVE_INFINITY,
  above: readonly string[] = [],
): AsyncGenerator<string | ItemFailure> {
  let folder: Dir;
  let self: string;
  try {
    self = await identity(path);
    if (above.includes(self)) return;
    folder = await openFolder(path);
  } catch (error) {
    yield failureOf(path, error);
    return;
  }
  try {
    for (let run = await readRun(folder); run.length > 0; run = await readRun(folder)) {
      for (const { name, entry } of run) {
        const inside = join(path, name);
        try {
          const kind = await kindOf(inside, entry);
          if (kind === 'folder' && depth > 1)
            yield* walk(inside, wanted, reported, onPassedOver, depth - 1, [...above, self]);
          else if (kind === 'file' && wanted(inside)) yield inside;
          else if (kind === 'file') onPassedOver(inside);
        } catch (error) {
          if (reported(inside, error)) yield failureOf(inside, error);
        }
      }
    }
  } catch (error) {
    yield failureOf(path, error);
  } finally {
    await folder.close().catch(() => undefined);
  }
}

/** The files that a pattern matches; with image endings only, unless the pattern itself names an ending. */
async function* matches(pattern: string): AsyncGenerator<string | ItemFailure> {
  const { glob } = picomatch.scan(pattern);
  const isMatch = picomatch(pattern);
  const named = /\.[^/*?]+$/.test(glob);
  const wanted: Wanted = (path) => isMatch(path) && (named || isImageName(path));
  const fixedDepth = !/\*\*|[{(!]/.test(glob);
  const depth = fixedDepth ? glob.split('/').length : Number.POSITIVE_INFINITY;
  let any = false;
  for await (const found of walk(baseOf(pattern), wanted, wanted, undefined, depth)) {
    any = true;
    yield found;
  }
  if (!any) yield failureOf(pattern, fault('not-found', 'no file matches the pattern'));
}

const baseOf = (pattern: string) => picomatch.scan(pattern).base || '.';

/** The images of a file that holds many, or the file itself. */
async function* opened(
  found: string | ItemFailure,
  root: string,
  options: SourceOptions,
): AsyncGenerator<Placed> {
  const kind = typeof found === 'string' ? containerKind(found) : undefined;
  if (kind === undefined || typeof found !== 'string') yield { found, root };
  else for await (const inside of imagesInside(found, kind, options)) yield { found: inside, root: found };
}

async function* expand(input: string, patterns: boolean, options: SourceOptions): AsyncGenerator<Placed> {
  const root = dirname(input);
  if (input.includes('\0')) {
    const message = 'no path holds a NUL byte; if the paths on standard input end in NUL, say -0';
    yield { found: failureOf(input, fault('not-found', message)), root };
    return;
  }
  try {
    const info = await stat(systemPath(input));
    if (info.isDirectory())
      for await (const found of walk(input, isImageName, mightMatter, options.onPassedOver))
        yield { found, root: input };
    else yield* opened(input, root, options);
  } catch (error) {
    const link = await lstat(systemPath(input)).then(
      () => true,
      () => false,
    );
    if (patterns && !link && systemCode(error) === 'ENOENT' && picomatch.scan(input).isGlob)
      for await (const found of matches(input)) yield* opened(found, baseOf(input), options);
    else yield { found: failureOf(input, error), root };
  }
}

/**
 * The paths of the images that `inputs` name, in their order: a file itself, a folder's images (recursive; see
 * `IMAGE_EXTENSIONS`), a pattern's matches (`photos/**\/*.png`), and for `-` the paths on standard input, one per
 * line, each a file or a folder. Archives, IDX files and CIFAR batches that are named yield the images in them (see
 * `imagesInside`). Names within a folder are sorted, in runs of `SORTED_RUN` entries.
 * What cannot be found or read is a failed item, and the stream goes on.
 */
export async function* findImages(
  inputs: Iterable<string>,
  options: SourceOptions = {},
): AsyncGenerator<Found> {
  for await (const { found } of findPlaced(inputs, options)) yield found;
}

/** As `findImages`, with the folder that each was found beneath. */
export async function* findPlaced(
  inputs: Iterable<string>,
  options: SourceOptions = {},
): AsyncGenerator<Placed> {
  for (const input of inputs) {
    if (input !== '-') yield* expand(input, true, options);
    else {
      const lines = linesOf(options.stdin ?? process.stdin, options.nul ? '\0' : '\n');
      for await (const path of lines) yield* expand(path, false, options);
    }
  }
}
