// Labelled images out of one file: IDX (MNIST and its kin) and the binary batches of CIFAR-10 and CIFAR-100, gzipped
// or not. Read as a stream; what stays in memory is a chunk and one image.

import { createReadStream } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { UsageError } from '../errors.ts';
import { systemCode } from './failures.ts';
import type { Pixels } from './pixels.ts';

/** An image with its class. */
export interface LabelledPixels {
  /** Where it is in the file, from 0. */
  readonly index: number;
  readonly label: number;
  readonly pixels: Pixels;
}

/** Bytes of a file, inflated where its name ends in .gz. */
export async function* bytesOf(path: string): AsyncGenerator<Buffer> {
  const file = createReadStream(path);
  const source: Readable = /\.gz$/i.test(path) ? file.pipe(createGunzip()) : file;
  if (source !== file) file.on('error', (error) => source.destroy(error));
  try {
    yield* source as AsyncIterable<Buffer>;
  } catch (error) {
    const system = systemCode(error);
    const why = system ?? (error instanceof Error ? error.message : String(error));
    throw new UsageError(`${path}: cannot be read (${why})`);
  } finally {
    source.destroy();
    file.destroy();
  }
}

/** Pieces of given lengths, one after the other, out of a stream of bytes. */
class Pieces {
  readonly #path: string;
  readonly #source: AsyncGenerator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);
  #at = 0;

  constructor(path: string) {
    this.#path = path;
    this.#source = bytesOf(path);
  }

  /** The next `length` bytes; undefined where the file ends exactly here. @throws UsageError where it ends within. */
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
      throw new UsageError(
        `${this.#path}: ends after ${this.#at + bytes.length} bytes, within what reaches to ${this.#at + length}`,
      );
    this.#at += length;
    this.#rest = bytes.subarray(length);
    return bytes.subarray(0, length);
  }

  /** As `take`, where the file must not end. */
  async need(length: number): Promise<Buffer> {
    const bytes = await this.take(length);
    if (!bytes) throw new UsageError(`${this.#path}: ends after ${this.#at} bytes; more was promised`);
    return bytes;
  }

  async close(): Promise<void> {
    await this.#source.return(undefined);
  }
}

const CIFAR_SIDE = 32;
const CIFAR_PIXELS = 3 * CIFAR_SIDE * CIFAR_SIDE;

/** The kinds of files that hold labelled images. */
export type RecordKind = 'idx' | 'cifar';

/** Which kind a file is by its name; undefined where it is none. */
export function recordKind(path: string): RecordKind | undefined {
  const name = basename(path).replace(/\.gz$/i, '');
  if (/\.bin$/i.test(name)) return 'cifar';
  return /[.-]idx[0-9]|-ubyte$|\.idx$/i.test(name) ? 'idx' : undefined;
}

/**
 * The images of a file by `recordKind`.
 *
 * @throws UsageError naming the file, for what is not in order.
 */
export function readRecords(path: string, labels?: string): AsyncGenerator<LabelledPixels> {
  switch (recordKind(path)) {
    case 'cifar':
      return readCifar(path);
    case 'idx':
      return readIdx(path, labels);
    default:
      throw new UsageError(`${path}: wanted IDX files (...-idx3-ubyte[.gz]) or CIFAR batches (....bin[.gz])`);
  }
}

/**
 * Images of a CIFAR binary batch: a label, or a coarse and a fine one (CIFAR-100: its files are train.bin and
 * test.bin, and the fine one counts), then 32 x 32 RGB, plane by plane.
 *
 * @throws UsageError where the file ends within an image, or holds none.
 */
export async function* readCifar(path: string): AsyncGenerator<LabelledPixels> {
  const labels = /^(train|test)\.bin(\.gz)?$/i.test(basename(path)) ? 2 : 1;
  const pieces = new Pieces(path);
  const plane = CIFAR_SIDE * CIFAR_SIDE;
  try {
    for (let index = 0; ; index++) {
      const record = await pieces.take(labels + CIFAR_PIXELS);
      if (!record) {
        if (index === 0) throw new UsageError(`${path}: holds no images`);
        return;
      }
      const label = record[labels - 1]!;
      if (label > (labels === 2 ? 99 : 9))
        throw new UsageError(`${path}: image ${index} has the label ${label}; this is no CIFAR batch`);
      const data = new Uint8Array(CIFAR_PIXELS);
      for (let c = 0; c < 3; c++)
        for (let i = 0; i < plane; i++) data[i * 3 + c] = record[labels + c * plane + i]!;
      yield { index, label, pixels: { width: CIFAR_SIDE, height: CIFAR_SIDE, channels: 3, data } };
    }
  } finally {
    await pieces.close();
  }
}

/** The file of labels that belongs to a file of images, by the names that MNIST's have. */
export const labelsBeside = (path: string): string =>
  join(dirname(path), basename(path).replace('images', 'labels').replace('idx3', 'idx1'));

async function idxHeader(pieces: Pieces, path: string, ...dimensions: readonly number[]): Promise<number[]> {
  const magic = await pieces.need(4);
  const [zero, none, type, count = 0] = magic;
  if (zero !== 0 || none !== 0 || type !== 8 || !dimensions.includes(count))
    throw new UsageError(
      `${path}: wanted an IDX file of unsigned bytes in ${dimensions.join(' or ')} dimensions`,
    );
  const sizes = await pieces.need(4 * count);
  return Array.from({ length: count }, (_, i) => sizes.readUInt32BE(4 * i));
}

/**
 * Images of an IDX file [n, height, width], grey, with the labels of another one [n].
 *
 * @throws UsageError naming the file, where one ends early or is none, or their counts differ.
 */
export async function* readIdx(path: string, labels = labelsBeside(path)): AsyncGenerator<LabelledPixels> {
  if (labels === path)
    throw new UsageError(`${path}: its labels have no name of their own; wanted ...-images-idx3-ubyte`);
  const images = new Pieces(path);
  const names = new Pieces(labels);
  try {
    const [count = 0, height = 0, width = 0] = await idxHeader(images, path, 3);
    const [labelled = 0] = await idxHeader(names, labels, 1);
    if (count !== labelled)
      throw new UsageError(`${path} holds ${count} images, ${labels} ${labelled} labels`);
    if (count * height * width === 0) throw new UsageError(`${path}: holds no images`);
    for (let index = 0; index < count; index++) {
      const data = Uint8Array.from(await images.need(height * width));
      const label = (await names.need(1))[0]!;
      yield { index, label, pixels: { width, height, channels: 1, data } };
    }
  } finally {
    await images.close();
    await names.close();
  }
}
