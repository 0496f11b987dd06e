// The header of a safetensors file: 8 bytes with its length (u64, little-endian), that many bytes of JSON
// {name: {dtype, shape, data_offsets: [begin, end]}}, then the data without holes. The file may come from
// anywhere, so everything in it is checked: any fault is a ModelError naming the file and the tensor.

import { ModelError } from '../../errors.ts';
import { parseJson, quote } from './json.ts';

/** Bits of an element, by the format's names of dtypes. Only F32, F16 and BF16 can be converted to floats. */
export const DTYPE_BITS = {
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E4M3: 8,
  F8_E5M2: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U16: 16,
  I16: 16,
  F16: 16,
  BF16: 16,
  U32: 32,
  I32: 32,
  F32: 32,
  U64: 64,
  I64: 64,
  F64: 64,
  C64: 64,
} as const;

export type SafetensorsDtype = keyof typeof DTYPE_BITS;

/** Longest header accepted, in bytes; the same limit as the format's own library. */
export const MAX_HEADER_BYTES = 100_000_000;

/** The most dimensions of a tensor; PyTorch has the same limit. */
const MAX_RANK = 64;

/** A tensor of a file: `begin` is its first byte counted from the start of `file`. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  readonly file: string;
  readonly begin: number;
  readonly bytes: number;
}

/** A parsed header: the tensors by name in the order of their data, and `__metadata__`. */
interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: ReadonlyMap<string, string>;
}

/**
 * Returns the length of the header from the file's first 8 bytes.
 * @throws ModelError if it is over 100 MB or does not fit in the file.
 */
export function headerLength(prefix: Uint8Array, file: string, fileBytes: number): number {
  if (prefix.length < 8)
    throw new ModelError(`${file}: expected at least 8 bytes of a safetensors file, got ${fileBytes}`);
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES))
    throw new ModelError(
      `${file}: expected a header of at most ${MAX_HEADER_BYTES} bytes, got ${length} (is this a safetensors file?)`,
    );
  if (8n + length > BigInt(fileBytes))
    throw new ModelError(
      `${file}: a header of ${length} bytes does not fit in a file of ${fileBytes} bytes (cut off?)`,
    );
  return Number(length);
}

/**
 * Reads the JSON of a header and checks every entry: known dtypes, shapes of whole numbers, offsets inside the
 * file that match dtype and shape, data without holes, overlaps or trailing bytes.
 * @throws ModelError naming the file and the tensor.
 */
export function parseHeader(json: Uint8Array, file: string, fileBytes: number): SafetensorsHeader {
  if (json[0] !== 0x7b)
    throw new ModelError(`${file}: the header does not begin with '{' (is this a safetensors file?)`);
  const header = parseJson(json, file);
  if (!isObject(header)) throw new ModelError(`${file}: the header is not an object`);
  const dataBegin = 8 + json.length;
  const found: TensorInfo[] = [];
  let metadata: ReadonlyMap<string, string> = new Map();
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') metadata = parseMetadata(entry, file);
    else found.push(parseEntry(name, entry, file, dataBegin, fileBytes));
  }
  checkCoverage(found, file, dataBegin, fileBytes);
  return { tensors: new Map(found.map((tensor) => [tensor.name, tensor])), metadata };
}

function parseMetadata(entry: unknown, file: string): ReadonlyMap<string, string> {
  if (!isObject(entry)) throw new ModelError(`${file}: __metadata__ is not an object of strings`);
  const metadata = new Map<string, string>();
  for (const [key, value] of Object.entries(entry)) {
    if (typeof value !== 'string')
      throw new ModelError(`${file}: __metadata__ ${quote(key)}: expected a string, got ${quote(value)}`);
    metadata.set(key, value);
  }
  return metadata;
}

function parseEntry(
  name: string,
  entry: unknown,
  file: string,
  dataBegin: number,
  fileBytes: number,
): TensorInfo {
  const refuse = (what: string): ModelError => new ModelError(`${file}: tensor ${quote(name)} ${what}`);
  if (name === '__proto__' || name === '') throw refuse('has a name that is not accepted');
  if (!isObject(entry)) throw refuse('is not an object with dtype, shape and data_offsets');
  for (const key of Object.keys(entry))
    if (key !== 'dtype' && key !== 'shape' && key !== 'data_offsets')
      throw refuse(`has an unknown field ${quote(key)}`);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== 'string' || !Object.hasOwn(DTYPE_BITS, dtype))
    throw refuse(`has an unknown dtype ${quote(dtype)}`);
  const known = dtype as SafetensorsDtype;

  if (!isWholeNumbers(shape)) throw refuse(`has shape ${quote(shape)}; expected whole numbers from 0 on`);
  if (shape.length > MAX_RANK) throw refuse(`has ${shape.length} dimensions; expected at most ${MAX_RANK}`);
  let elements = 1;
  for (const size of shape) {
    elements *= size;
    if (!Number.isSafeInteger(elements))
      throw refuse(`has shape ${quote(shape)}, more elements than can be counted`);
  }
  const bits = elements * DTYPE_BITS[known];
  if (!Number.isSafeInteger(bits) || bits % 8 !== 0)
    throw refuse(`of dtype ${known} has shape ${quote(shape)}, not a whole number of bytes`);

  if (!isWholeNumbers(offsets) || offsets.length !== 2)
    throw refuse(`has data_offsets ${quote(offsets)}; expected [begin, end]`);
  const [begin, end] = offsets as [number, number];
  const dataBytes = fileBytes - dataBegin;
  if (begin > end || end > dataBytes)
    throw refuse(`has data_offsets [${begin}, ${end}], outside the ${dataBytes} bytes of data in the file`);
  if (end - begin !== bits / 8)
    throw refuse(
      `of dtype ${known} and shape [${shape.join(', ')}]: expected ${bits / 8} bytes, got ${end - begin}`,
    );
  return {
    name,
    dtype: known,
    shape: shape.map((size) => size + 0),
    file,
    begin: dataBegin + begin,
    bytes: end - begin,
  };
}

/** Sorts the tensors by position and checks that they cover the data exactly once. */
function checkCoverage(found: TensorInfo[], file: string, dataBegin: number, fileBytes: number): void {
  found.sort((a, b) => a.begin - b.begin || a.bytes - b.bytes);
  let end = dataBegin;
  for (const tensor of found) {
    if (tensor.begin < end)
      throw new ModelError(
        `${file}: tensor ${quote(tensor.name)} overlaps the one before it by ${end - tensor.begin} bytes`,
      );
    if (tensor.begin > end)
      throw new ModelError(
        `${file}: tensor ${quote(tensor.name)} has ${tensor.begin - end} bytes before it that belong to no tensor`,
      );
    end = tensor.begin + tensor.bytes;
  }
  if (end !== fileBytes)
    throw new ModelError(`${file}: ${fileBytes - end} bytes after the last tensor belong to no tensor`);
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const isWholeNumbers = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
