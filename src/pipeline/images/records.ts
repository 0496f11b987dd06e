// Reads images out of one stream of records: IDX (MNIST and its kin) and the binary batches of CIFAR-10 and CIFAR-100.
// One chunk of the stream and one image are in memory at a time. Faults are `ItemError`s; the caller names the file.

import { ItemError } from '../../errors.ts';
import { concatBytes, uint32At } from './bytes.ts';
import { fault, itemErrorOf } from './failures.ts';
import type { Pixels } from './pixels.ts';

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

/** The bytes of a file, as a stream. */
type ByteStream = AsyncGenerator<Uint8Array, undefined>;

/** Reads a stream in parts of given lengths. */
class Reader {
  readonly #source: ByteStream;
  #rest: Uint8Array = new Uint8Array();
  #at = 0;

  constructor(source: ByteStream) {
    this.#source = source;
  }

  /** Returns the next `length` bytes; undefined if the file ends exactly here. Throws `ItemError` if it ends within. */
  async take(length: number): Promise<Uint8Array | undefined> {
    const parts = [this.#rest];
    let size = this.#rest.length;
    while (size < length) {
      const { done, value } = await this.#source.next();
      if (done) break;
      parts.push(value);
      size += value.length;
    }
    const bytes = concatBytes(parts);
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

  /** Returns the next `length` bytes. Throws `ItemError` if the file ends before. */
  async need(length: number): Promise<Uint8Array> {
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

/**
 * Reads a CIFAR binary batch. Each record has `labels` labels of one byte (CIFAR-10: 1; CIFAR-100: 2, a coarse one and
 * the fine one, which counts), then 32 x 32 RGB, plane by plane. Throws `ItemError` if the file is damaged or another kind.
 */
export async function* readCifar(source: ByteStream, labels: 1 | 2): AsyncGenerator<LabelledPixels> {
  const reader = new Reader(source);
  const plane = CIFAR_SIDE * CIFAR_SIDE;
  try {
    for (let index = 0; ; index++) {
      const record = await reader.take(labels + CIFAR_PIXELS);
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
    await reader.close();
  }
}

/** Reads the sizes in the header of an IDX file of bytes. */
async function idxHeader(reader: Reader, dimensions: number): Promise<number[]> {
  const magic = await reader.need(4);
  const [zero, none, type, count = 0] = magic;
  if (zero !== 0 || none !== 0 || type !== 8 || count !== dimensions)
    throw fault(
      'not-an-image',
      `expected an IDX file of unsigned bytes in ${dimensions} dimension${dimensions === 1 ? '' : 's'}`,
    );
  const sizes = await reader.need(4 * count);
  return Array.from({ length: count }, (_, i) => uint32At(sizes, 4 * i));
}

/**
 * Reads the grey images of an IDX file [n, height, width]. Calls `check` with n before the first image. Throws `ItemError`
 * if the file is damaged or another kind.
 */
export async function* readIdxImages(
  source: ByteStream,
  check: (count: number) => Promise<void> = async () => {},
): AsyncGenerator<RecordImage> {
  const reader = new Reader(source);
  try {
    const [count = 0, height = 0, width = 0] = await idxHeader(reader, 3);
    await check(count);
    if (count * height * width === 0) throw fault('empty', 'holds no images');
    for (let index = 0; index < count; index++) {
      const data = Uint8Array.from(await reader.need(height * width));
      yield { index, pixels: { width, height, channels: 1, data } };
    }
    await reader.take(1); // reaches the checksum at the end of gzip data, which throws if it is wrong
  } finally {
    await reader.close();
  }
}

/**
 * Reads the images of an IDX file with their labels, which are in a file of their own. `labelFile` is the name of that
 * file in messages. Throws `ItemError` if either file is damaged or another kind, or if their counts differ.
 */
export async function* readIdx(
  source: ByteStream,
  labelSource: ByteStream,
  labelFile: string,
): AsyncGenerator<LabelledPixels> {
  const labels = new Reader(labelSource);
  /** Names the file in an error. */
  const ofLabels = (error: unknown): never => {
    const { code, message } = itemErrorOf(error);
    throw new ItemError(code, `its labels, ${labelFile}: ${message}`, { cause: error });
  };
  const check = async (count: number) => {
    const [labelled = 0] = await idxHeader(labels, 1).catch(ofLabels);
    if (count !== labelled)
      throw fault('corrupt', `holds ${count} images, but ${labelFile} holds ${labelled} labels`);
  };
  try {
    for await (const image of readIdxImages(source, check)) {
      const [label = 0] = await labels.need(1).catch(ofLabels);
      yield { ...image, label };
    }
  } finally {
    await labels.close();
  }
}
