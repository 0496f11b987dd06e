// Finds the images that inputs name: files, folders, patterns and lists on standard input. Everything is streamed:
// memory is bounded by the depth of folders, with one run of names each, whatever the number of files.

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

/** Number of entries of a folder that are sorted together: larger folders come in several sorted runs. */
const SORTED_RUN = 4096;

/** An image in an archive or a file of records, with a path such as `photos.zip/a.png` or `t10k-idx3.gz#17`. */
export type NamedImage = EncodedImage | DecodedImage;

/**
 * A path to an image, an image that has no file of its own, or a failure. For bytes of a path that are not UTF-8, see
 * `escaping.ts`.
 */
export type Found = string | NamedImage | ItemFailure;

/** Whether what was found is an image and not a failure. */
export const isImage = (found: Found): found is string | NamedImage =>
  typeof found === 'string' || !isFailure(found);

/** What was found, and the folder of the input: the folder itself, a file's, or the one below which a pattern looks. */
interface FoundBelow {
  readonly found: Found;
  readonly root: string;
}

/** How inputs are read. */
export interface SourceOptions {
  /** The stream that `-` reads. Default: standard input. */
  readonly stdin?: AsyncIterable<Uint8Array>;
  /** If true, paths on standard input end in NUL instead of a line feed. */
  readonly nul?: boolean;
  /** If true, images in archives come without their data, which is enough to count them. */
  readonly namesOnly?: boolean;
  /** Called with every file in a folder or an archive that is left out because its extension is not an image's. */
  readonly onPassedOver?: (path: string) => void;
}

/** Decides by its path whether a file is taken. */
type PathFilter = (path: string) => boolean;

/** Whether an entry that cannot be followed is reported: if it could have been an image, or a folder of images. */
const couldBeImages = (path: string, error: unknown) =>
  isImageName(path) || (extensionOf(path) === undefined && systemCode(error) !== 'ELOOP');

/** An entry of a folder with its name as text. */
interface Entry {
  readonly name: string;
  readonly entry: Dirent;
}

/** Reads the next entries of a folder, sorted by name, without hidden ones; none at its end. */
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

/** Opens a folder with names as bytes, because names that are not UTF-8 would be damaged as text. */
const openFolder = (path: string): Promise<Dir> =>
  opendir(systemPath(path) as string, { encoding: 'buffer' as BufferEncoding });

/** Returns an identity of a folder, by which links that lead back into it are recognised. */
async function identity(path: string): Promise<string> {
  const { dev, ino } = await stat(systemPath(path), { bigint: true });
  return `${dev}:${ino}`;
}

/** Returns the kind of an entry, following links. */
async function kindOf(path: string, entry: Dirent): Promise<'file' | 'folder' | 'other'> {
  const entryOrTarget =
    entry.isSymbolicLink() || !(entry.isFile() || entry.isDirectory()) ? await stat(systemPath(path)) : entry;
  return entryOrTarget.isDirectory() ? 'folder' : entryOrTarget.isFile() ? 'file' : 'other';
}

/**
 * Yields the files below a folder that `takes` accepts, depth first. Leaves out names that begin with a dot, and follows
 * links, but does not enter a folder again into which links lead back. A folder that vanishes or cannot be read is one
 * failed item; so is an entry that cannot be followed, if `reports` accepts it.
 */
async function* walk(
  path: string,
  takes: PathFilter,
  reports: (path: string, error: unknown) => boolean,
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
            yield* walk(inside, takes, reports, onPassedOver, depth - 1, [...above, self]);
          else if (kind === 'file' && takes(inside)) yield inside;
          else if (kind === 'file') onPassedOver(inside);
        } catch (error) {
          if (reports(inside, error)) yield failureOf(inside, error);
        }
      }
    }
  } catch (error) {
    yield failureOf(path, error);
  } finally {
    await folder.close().catch(() => undefined);
  }
}

/** Yields the files that a pattern matches, but only images unless the pattern itself has an extension. */
async function* matches(pattern: string): AsyncGenerator<string | ItemFailure> {
  const { glob } = picomatch.scan(pattern);
  const isMatch = picomatch(pattern);
  const hasExtension = /\.[^/*?]+$/.test(glob);
  const takes: PathFilter = (path) => isMatch(path) && (hasExtension || isImageName(path));
  const fixedDepth = !/\*\*|[{(!]/.test(glob);
  const depth = fixedDepth ? glob.split('/').length : Number.POSITIVE_INFINITY;
  let any = false;
  for await (const found of walk(baseOf(pattern), takes, takes, undefined, depth)) {
    any = true;
    yield found;
  }
  if (!any) yield failureOf(pattern, fault('not-found', 'no file matches the pattern'));
}

/** Returns the folder below which a pattern looks. */
const baseOf = (pattern: string) => picomatch.scan(pattern).base || '.';

/** Yields the images of a file that holds many, or the file itself. */
async function* opened(
  found: string | ItemFailure,
  root: string,
  options: SourceOptions,
): AsyncGenerator<FoundBelow> {
  const kind = typeof found === 'string' ? containerKind(found) : undefined;
  if (kind === undefined || typeof found !== 'string') yield { found, root };
  else for await (const inside of imagesInside(found, kind, options)) yield { found: inside, root: found };
}

/** Yields what one input names. */
async function* expand(input: string, patterns: boolean, options: SourceOptions): AsyncGenerator<FoundBelow> {
  const root = dirname(input);
  if (input.includes('\0')) {
    const message = 'expected a path without NUL bytes; if the paths on standard input end in NUL, use -0';
    yield { found: failureOf(input, fault('not-found', message)), root };
    return;
  }
  try {
    const info = await stat(systemPath(input));
    if (info.isDirectory())
      for await (const found of walk(input, isImageName, couldBeImages, options.onPassedOver))
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
 * Finds the images that inputs name, in their order. Names within a folder are sorted, in runs of 4,096 entries. What
 * cannot be found or read becomes a failed item, and the stream goes on.
 *
 * @param inputs files, folders (recursive; files with the extension of an image), patterns (`photos/**\/*.png`), and `-`
 *   for the paths on standard input, one per line, each a file or a folder. Archives, IDX files and CIFAR batches that
 *   are named yield the images in them (see `imagesInside`).
 * @param options where `-` reads, and whether paths there end in NUL.
 * @return paths, images in archives, and failures, for `loadImages`.
 *
 * @example
 * import { findImages } from 'diffclass-stream';
 * for await (const found of findImages(['photos', 'scans/*.png'])) console.log(found);
 */
export async function* findImages(
  inputs: Iterable<string>,
  options: SourceOptions = {},
): AsyncGenerator<Found> {
  for await (const { found } of findBelow(inputs, options)) yield found;
}

/** Finds images as `findImages` does, each with the folder of its input. */
export async function* findBelow(
  inputs: Iterable<string>,
  options: SourceOptions = {},
): AsyncGenerator<FoundBelow> {
  for (const input of inputs) {
    if (input !== '-') yield* expand(input, true, options);
    else {
      const lines = linesOf(options.stdin ?? process.stdin, options.nul ? '\0' : '\n');
      for await (const path of lines) yield* expand(path, false, options);
    }
  }
}
