// Images out of one file of records: IDX (MNIST and its kin) and the binary batches of CIFAR-10 and CIFAR-100, gzipped
// or not. They are read as a stream; a chunk and one image are in memory at a time. Faults are `ItemError`s; whoever
// reads the file says which file it is.

import { basename, dirname, join } from 'node:path';
import { ItemError } from '../../errors.ts';
import { fault, itemErrorOf } from './failures.ts';
import type { Pixels } from './pixels.ts';
import { inflatedFile } from './read-bytes.ts';

/** An image in a file of records. */
export interface RecordImage {
  /** Position in the file, from 0. */
  readonly index: number;
  readonly pixels: Pixels;
}

/** An image with its class. */
export interface LabelledPixels extends RecordImage {
  readonly label: number;
}

/** Pieces of given lengths, one after the other, out of a file. */
class Pieces {
  readonly #source: AsyncGenerator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);
  #at = 0;

  constructor(path: string) {
    this.#source = inflatedFile(path);
  }

  /** Returns the next `length` bytes; undefined if the file ends exactly here. @throws ItemError if it ends within. */
  async take(length: number): Promise<Buffer | undefined> {
    const parts = [this.#rest];
    let size = this.#rest.length;
    while (size < length) {
      const { done, value } = await this.#source.next();
      if (done) break;
      parts.push(value);
      size += value.length;
    }
    const bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    if (bytes.length === 0) return undefined;
    if (bytes.length < length)
      throw fault(
        'truncated',
        `ends after ${this.#at + bytes.length} bytes, within a record that reaches to ${this.#at + length}`,
      );
    this.#at += length;
    this.#rest = bytes.subarray(length);
    return bytes.subarray(0, length);
  }

  /** As `take`, for bytes that must be there. */
  async need(length: number): Promise<Buffer> {
    const bytes = await this.take(length);
    if (!bytes) throw fault('truncated', `ends after ${this.#at} bytes, before its last record`);
    return bytes;
  }

  async close(): Promise<void> {
    await this.#source.return(undefined);
  }
}

const CIFAR_SIDE = 32;
const CIFAR_PIXELS = 3 * CIFAR_SIDE * CIFAR_SIDE;

/** The kinds of files that hold records. */
export type RecordKind = 'idx' | 'cifar';

/** Returns the kind of a file by its name; undefined if it is none. */
export function recordKind(path: string): RecordKind | undefined {
  const name = basename(path).replace(/\.gz$/i, '');
  if (/\.bin$/i.test(name)) return 'cifar';
  return /[.-]idx[0-9]|-ubyte$|\.idx$/i.test(name) ? 'idx' : undefined;
}

/**
 * Reads the images of a file with their labels. The labels of IDX images are in a file of their own: `labels`, by
 * default the one next to it that is named as MNIST's are.
 *
 * @throws ItemError for a file that is damaged, or of another kind.
 */
export function readRecords(path: string, labels = labelsBeside(path)): AsyncGenerator<LabelledPixels> {
  return recordKind(path) === 'cifar' ? readCifar(path) : readIdx(path, labels);
}

/** Reads the images of a file; those of an IDX file need no labels. @throws ItemError, as `readRecords`. */
export function readRecordImages(path: string): AsyncGenerator<RecordImage> {
  return recordKind(path) === 'cifar' ? readCifar(path) : readIdxImages(path);
}

/**
 * Reads a CIFAR binary batch: a label, or a coarse and a fine one (CIFAR-100: its files are train.bin and test.bin,
 * and the fine one counts), then 32 x 32 RGB, plane by plane.
 */
async function* readCifar(path: string): AsyncGenerator<LabelledPixels> {
  const labels = /^(train|test)\.bin(\.gz)?$/i.test(basename(path)) ? 2 : 1;
  const pieces = new Pieces(path);
  const plane = CIFAR_SIDE * CIFAR_SIDE;
  try {
    for (let index = 0; ; index++) {
      const record = await pieces.take(labels + CIFAR_PIXELS);
      if (!record) {
        if (index === 0) throw fault('empty', 'holds no images');
        return;
      }
      const label = record[labels - 1]!;
      if (label > (labels === 2 ? 99 : 9))
        throw fault('not-an-image', `image ${index} has the label ${label}; this is no CIFAR batch`);
      const data = new Uint8Array(CIFAR_PIXELS);
      for (let c = 0; c < 3; c++)
        for (let i = 0; i < plane; i++) data[i * 3 + c] = record[labels + c * plane + i]!;
      yield { index, label, pixels: { width: CIFAR_SIDE, height: CIFAR_SIDE, channels: 3, data } };
    }
  } finally {
    await pieces.close();
  }
}

/** Returns the file of labels that belongs to a file of images, by the names that MNIST's have. */
export const labelsBeside = (path: string): string =>
  join(dirname(path), basename(path).replace('images', 'labels').replace('idx3', 'idx1'));

/** Reads the sizes in the header of an IDX file of bytes. */
async function idxHeader(pieces: Pieces, dimensions: number): Promise<number[]> {
  const magic = await pieces.need(4);
  const [zero, none, type, count = 0] = magic;
  if (zero !== 0 || none !== 0 || type !== 8 || count !== dimensions)
    throw fault(
      'not-an-image',
      `expected an IDX file of unsigned bytes in ${dimensions} dimension${dimensions === 1 ? '' : 's'}`,
    );
  const sizes = await pieces.need(4 * count);
  return Array.from({ length: count }, (_, i) => sizes.readUInt32BE(4 * i));
}

/** Reads the grey images of an IDX file [n, height, width]. The header's count comes first, to compare with labels. */
async function* readIdxImages(
  path: string,
  check: (count: number) => Promise<void> = async () => {},
): AsyncGenerator<RecordImage> {
  const pieces = new Pieces(path);
  try {
    const [count = 0, height = 0, width = 0] = await idxHeader(pieces, 3);
    await check(count);
    if (count * height * width === 0) throw fault('empty', 'holds no images');
    for (let index = 0; index < count; index++) {
      const data = Uint8Array.from(await pieces.need(height * width));
      yield { index, pixels: { width, height, channels: 1, data } };
    }
    await pieces.take(1); // reaches the checksum at the end of gzip data, which throws if it is wrong
  } finally {
    await pieces.close();
  }
}

async function* readIdx(path: string, labelFile: string): AsyncGenerator<LabelledPixels> {
  if (labelFile === path)
    throw fault('not-found', 'its labels have no name of their own; expected ...-images-idx3-ubyte');
  const labels = new Pieces(labelFile);
  const ofLabels = (error: unknown) => {
    const { code, message } = itemErrorOf(error);
    return new ItemError(code, `its labels, ${labelFile}: ${message}`, { cause: error });
  };
  const check = async (count: number) => {
    const [labelled = 0] = await idxHeader(labels, 1).catch((error: unknown) => {
      throw ofLabels(error);
    });
    if (count !== labelled)
      throw fault('corrupt', `holds ${count} images, but ${labelFile} holds ${labelled} labels`);
  };
  try {
    for await (const image of readIdxImages(path, check)) {
      const [label = 0] = await labels.need(1).catch((error: unknown) => {
        throw ofLabels(error);
      });
      yield { ...image, label };
    }
  } finally {
    await labels.close();
  }
}
