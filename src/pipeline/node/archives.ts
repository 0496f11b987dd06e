// Reads files that hold many images: zip and tar archives, IDX files and CIFAR batches. Their images come one after the
// other, each with a path of its own, and one at a time is in memory. Damage becomes failed items; the stream goes on.

import { basename } from 'node:path';
import { crc32 } from 'node:zlib';
import { createTarDecoder } from 'modern-tar';
import type { Entry, ZipFile } from 'yauzl';
import { ItemError } from '../../errors.ts';
import { isImageName } from '../images/extensions.ts';
import { failureOf, fault, systemCode } from '../images/failures.ts';
import type { DecodedImage, EncodedImage } from '../images/image-input.ts';
import { MAX_BYTES } from '../images/limits.ts';
import { collectBytes } from '../images/read-bytes.ts';
import type { ItemFailure } from '../types.ts';
import { inflatedFile } from './read-file.ts';
import { type RecordKind, readRecordImages, recordKind } from './record-files.ts';

/** The kinds of files that hold many images. */
type ContainerKind = 'zip' | 'tar' | RecordKind;

/** How archives are read: fields of `SourceOptions`. */
interface ContainerOptions {
  readonly namesOnly?: boolean;
  readonly onPassedOver?: (path: string) => void;
}

/** Returns the kind of a file by its name; undefined if the name is not one of a file that holds many images. */
export function containerKind(path: string): ContainerKind | undefined {
  if (/\.zip$/i.test(path)) return 'zip';
  if (/\.(tar|tar\.gz|tgz)$/i.test(path)) return 'tar';
  return recordKind(path);
}

type Inside = EncodedImage | DecodedImage | ItemFailure;

/**
 * Yields the images in a file that holds many: entries of an archive with the extension of an image, as
 * `photos.zip/a/b.png`, or every record, as `t10k-images-idx3-ubyte.gz#17`. Hidden entries are left out, and archives
 * in archives are not opened. A damaged entry becomes a failed item; if the file itself is damaged, a failed item with
 * its path comes last.
 */
export async function* imagesInside(
  path: string,
  kind: ContainerKind,
  options: ContainerOptions = {},
): AsyncGenerator<Inside> {
  try {
    switch (kind) {
      case 'zip':
        yield* zipImages(path, options);
        break;
      case 'tar':
        yield* tarImages(path, options);
        break;
      case 'idx':
      case 'cifar':
        for await (const { index, pixels } of readRecordImages(path))
          yield { ...pixels, path: `${path}#${index}` };
        break;
      default:
        kind satisfies never;
    }
  } catch (error) {
    yield failureOf(path, archiveError(kind, error));
  }
}

/** Makes an `ItemError` of an error of the archive libraries, all of which mean damage. */
function archiveError(kind: ContainerKind, error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof ItemError || systemCode(error) !== undefined)
    return error;
  const cut = /truncat|unexpected EOF|end of central directory/i.test(error.message);
  return fault(cut ? 'truncated' : 'corrupt', `${kind}: ${error.message}`, error);
}

/** Whether an entry is an image and not hidden. Reports other visible entries to `onPassedOver`. */
function isTaken(path: string, name: string, { onPassedOver }: ContainerOptions): boolean {
  const parts = name.split('/');
  if (parts.some((part) => part.startsWith('.') && part !== '.' && part !== '..')) return false;
  if (isImageName(name)) return true;
  onPassedOver?.(`${path}/${name}`);
  return false;
}

/** Reads one entry. If that fails, the entry becomes a failed item. */
async function entryImage(
  archive: string,
  kind: ContainerKind,
  name: string,
  size: number,
  read: () => Promise<Uint8Array>,
): Promise<EncodedImage | ItemFailure> {
  const path = `${archive}/${name.replace(/^(\.\/)+/, '')}`;
  try {
    if (name.startsWith('/') || name.split('/').includes('..'))
      throw fault('corrupt', `the name of the entry leads out of ${basename(archive)}`);
    if (size > MAX_BYTES) throw fault('too-large', `${size} bytes; at most ${MAX_BYTES} are read`);
    return { path, data: await read() };
  } catch (error) {
    return failureOf(path, archiveError(kind, error));
  }
}

const NOTHING = new Uint8Array(0);

async function* zipImages(
  path: string,
  options: ContainerOptions,
): AsyncGenerator<EncodedImage | ItemFailure> {
  // yauzl is CommonJS: imported lazily, it does not keep bundles of the library from loading.
  const { getFileNameLowLevel, openPromise } = await import('yauzl');
  // Names are decoded here: with `decodeStrings` a single bad one would end the whole archive.
  const zip = await openPromise(path, { autoClose: false, decodeStrings: false });
  try {
    for await (const entry of zip.eachEntry()) {
      const { generalPurposeBitFlag: flags, fileNameRaw, extraFields } = entry;
      const name = getFileNameLowLevel(flags, fileNameRaw, extraFields, false);
      if (name.endsWith('/') || !isTaken(path, name, options)) continue;
      const read = async () => (options.namesOnly ? NOTHING : zipEntry(zip, entry));
      yield await entryImage(path, 'zip', name, entry.uncompressedSize, read);
    }
  } finally {
    zip.close();
  }
}

async function zipEntry(zip: ZipFile, entry: Entry): Promise<Uint8Array> {
  if (entry.isEncrypted()) throw fault('unsupported-format', 'the entry is encrypted');
  const bytes = await collectBytes(await zip.openReadStreamPromise(entry));
  if (crc32(bytes) !== entry.crc32) throw fault('corrupt', 'the checksum of the entry is wrong');
  return bytes;
}

async function* tarImages(
  path: string,
  options: ContainerOptions,
): AsyncGenerator<EncodedImage | ItemFailure> {
  const entries = ReadableStream.from<Uint8Array>(inflatedFile(path)).pipeThrough(
    createTarDecoder({ strict: true }),
  );
  for await (const { header, body } of entries) {
    const { name, size, type = 'file' } = header;
    const taken = type === 'file' && isTaken(path, name, options);
    if (taken) {
      const read = async () => (options.namesOnly ? NOTHING : collectBytes(body));
      yield await entryImage(path, 'tar', name, size, read);
    }
    // An entry that was not read to its end would block the next one.
    await body.cancel().catch(() => undefined);
  }
}
