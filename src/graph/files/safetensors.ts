// Weights in safetensors files, or in files of torch.save, and in sharded sets of them, read lazily. Opening reads the headers only. A tensor's bytes
// are read when they are asked for, straight into the caller's memory if the caller gives some, so that a model larger
// than the host's memory can be put on the device tensor by tensor.

import { z } from 'zod';
import { ModelError, UnsupportedError } from '../../errors.ts';
import { bf16ToF32, f16ToF32, f32ToF16, MAX_F16 } from '../../kernels/device/half.ts';
import type { Elements } from '../../kernels/device/routine.ts';
import { product } from '../../numbers.ts';
import { type Files, nameIn, type OpenFile } from './files.ts';
import { checked, quote, readJson } from './json.ts';
import { DTYPE_BITS, headerLength, parseHeader, type TensorInfo } from './safetensors-header.ts';
import { isTorch, torchAsSafetensors } from './torch-tensors.ts';
import { TELLING_BYTES, wrongContent } from './wrong-content.ts';

export type { SafetensorsDtype, TensorInfo } from './safetensors-header.ts';

/** An open safetensors file, or a set of shards that one index lists. Reads may overlap. */
export interface TensorFile {
  /** The file, or the index of a sharded set. */
  readonly path: string;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The files' `__metadata__`; if shards disagree, the first one's. */
  readonly metadata: ReadonlyMap<string, string>;
  /** Reads a tensor's bytes as they are in the file, into `into` (of exactly that length) or a new array. */
  read(name: string, into?: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>>;
  /** Fills `into` with a tensor's bytes as they are in the file, from its byte `from` on. */
  readBytes(name: string, from: number, into: Uint8Array): Promise<void>;
  /** Reads a tensor as f32, exactly. @throws ModelError for dtypes other than F32, F16 and BF16. */
  readF32(name: string, into?: Float32Array<ArrayBuffer>): Promise<Float32Array<ArrayBuffer>>;
  /**
   * Reads a tensor as f16 bits for kernels that store halves: F16 as it is, F32 and BF16 rounded to nearest even. Values
   * under 2^-25 become zero.
   * @throws ModelError for a finite value from 65520 on, which has no f16. It is not saturated, because a network with
   * clipped weights still runs and is silently another network.
   */
  readF16(name: string, into?: Uint16Array<ArrayBuffer>): Promise<Uint16Array<ArrayBuffer>>;
  /**
   * Reads part of a tensor, from its element `from` on: floats are filled with f32, the bits of halves as by `readF16`.
   * @throws RangeError if the tensor ends before the part does.
   */
  readPart(name: string, from: number, into: Elements): Promise<void>;
  /** Closes the files after the reads under way. */
  close(): Promise<void>;
}

/** Elements converted at a time if a conversion cannot happen in place: 1 MiB of f32. */
const CHUNK = 1 << 18;

const isLittleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

/**
 * Opens a safetensors file or a file of torch.save, or the shards of an index if the name ends in `.json`.
 * @throws ModelError, one sentence naming file and tensor, for anything that is not a sound file.
 */
export async function openTensorFile(files: Files, name: string): Promise<TensorFile> {
  if (!isLittleEndian)
    throw new UnsupportedError('safetensors: this machine is big-endian, the format is not');
  return name.endsWith('.json') ? openShards(files, name) : openSafetensors(files, name);
}

/**
 * Opens a single file. Its content tells whether it is of safetensors or of torch.save, because names are sometimes wrong.
 * Throws what `openTensorFile` throws.
 */
export async function openSafetensors(files: Files, name: string): Promise<TensorFile> {
  const path = files.describe(name);
  let file = await files.open(name);
  try {
    const first = new Uint8Array(Math.min(TELLING_BYTES, file.size));
    await readAt(file, path, 0, first);
    const wrong = wrongContent(first);
    if (wrong) throw new ModelError(`${path}: ${wrong}`);
    if (isTorch(first)) file = await torchAsSafetensors(file, path);
    const prefix = new Uint8Array(Math.min(8, file.size));
    await readAt(file, path, 0, prefix);
    const json = new Uint8Array(headerLength(prefix, path, file.size));
    await readAt(file, path, 8, json);
    const { tensors, metadata } = parseHeader(json, path, file.size);
    return singleFile(path, tensors, metadata, file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

const indexSchema = z.object({
  metadata: z.record(z.string(), z.unknown()).optional(),
  weight_map: z.record(z.string(), z.string()),
});

/** Returns the name of a shard: a plain relative path, because an index may not make us read elsewhere. */
function shardName(index: string, shard: string, path: string): string {
  const inside =
    /^[^\\/:\0]+(?:\/[^\\/:\0]+)*$/.test(shard) &&
    !shard.split('/').some((part) => part === '..' || part === '.');
  if (!inside || !/\.(?:safetensors|bin)$/.test(shard))
    throw new ModelError(
      `${path}: the shard ${quote(shard)} is not a .safetensors or .bin file inside the folder`,
    );
  return nameIn(index.slice(0, Math.max(0, index.lastIndexOf('/'))), shard);
}

async function openShards(files: Files, name: string): Promise<TensorFile> {
  const index = files.describe(name);
  const raw = await readJson(files, name);
  const { weight_map: weightMap } = checked(indexSchema, raw, index);
  // zod drops `__proto__`, so that the check of the tensors' names would not see it.
  const listed = (raw as { weight_map: object }).weight_map;
  if (Object.hasOwn(listed, '__proto__'))
    throw new ModelError(`${index}: tensor "__proto__" has a name that is not accepted`);
  const shards = new Map<string, TensorFile>();
  const closeAll = async (): Promise<void> => {
    await Promise.all([...shards.values()].map((shard) => shard.close()));
  };
  try {
    const tensors = new Map<string, TensorInfo>();
    for (const [tensor, shard] of Object.entries(weightMap)) {
      const shardFile = shardName(name, shard, index);
      const path = files.describe(shardFile);
      if (!shards.has(path)) shards.set(path, await openSafetensors(files, shardFile));
      const info = shards.get(path)!.tensors.get(tensor);
      if (!info)
        throw new ModelError(`${path}: tensor ${quote(tensor)} is missing, although ${index} lists it here`);
      tensors.set(tensor, info);
    }
    for (const [path, shard] of shards)
      for (const tensor of shard.tensors.keys())
        if (tensors.get(tensor)?.file !== path)
          throw new ModelError(`${path}: tensor ${quote(tensor)} is not expected here by ${index}`);
    const metadata = new Map([...shards.values()].reverse().flatMap((shard) => [...shard.metadata]));
    return combine(index, tensors, metadata, shards, closeAll);
  } catch (error) {
    await closeAll();
    throw error;
  }
}

function combine(
  path: string,
  tensors: ReadonlyMap<string, TensorInfo>,
  metadata: ReadonlyMap<string, string>,
  shards: ReadonlyMap<string, TensorFile>,
  close: () => Promise<void>,
): TensorFile {
  const holder = (name: string): TensorFile => shards.get(find(tensors, name, path).file)!;
  return {
    path,
    tensors,
    metadata,
    read: async (name, into) => holder(name).read(name, into),
    readBytes: async (name, from, into) => holder(name).readBytes(name, from, into),
    readF32: async (name, into) => holder(name).readF32(name, into),
    readF16: async (name, into) => holder(name).readF16(name, into),
    readPart: async (name, from, into) => holder(name).readPart(name, from, into),
    close,
  };
}

function singleFile(
  path: string,
  tensors: ReadonlyMap<string, TensorInfo>,
  metadata: ReadonlyMap<string, string>,
  file: OpenFile,
): TensorFile {
  const load = (info: TensorInfo, into: Uint8Array, from = 0): Promise<void> =>
    readAt(file, `${info.file}: tensor ${quote(info.name)}`, info.begin + from, into);

  /** Fills `out` with the elements from `from` on. */
  async function loadF32(info: TensorInfo, from: number, out: Float32Array): Promise<void> {
    const width = DTYPE_BITS[info.dtype] / 8;
    // 16-bit values are read into the last half of the output and widened in place, from the front.
    const bytes = new Uint8Array(out.buffer, out.byteOffset, out.byteLength).subarray(
      (4 - width) * out.length,
    );
    await load(info, bytes, width * from);
    const narrow = () => new Uint16Array(bytes.buffer, bytes.byteOffset, out.length);
    if (info.dtype === 'F16') f16ToF32(narrow(), out);
    else if (info.dtype === 'BF16') bf16ToF32(narrow(), out);
  }

  async function loadF16(info: TensorInfo, from: number, out: Uint16Array): Promise<void> {
    if (info.dtype === 'F16')
      return load(info, new Uint8Array(out.buffer, out.byteOffset, out.byteLength), 2 * from);
    const wide = new Float32Array(Math.min(out.length, CHUNK));
    for (let at = 0; at < out.length; at += CHUNK) {
      const part = wide.subarray(0, Math.min(CHUNK, out.length - at));
      await loadF32(info, from + at, part);
      const overflow = f32ToF16(part, out.subarray(at, at + part.length));
      if (overflow >= 0)
        throw new ModelError(
          `${info.file}: tensor ${quote(info.name)} holds ${part[overflow]} at ${from + at + overflow}, beyond ±${MAX_F16} of f16`,
        );
    }
  }

  return {
    path,
    tensors,
    metadata,
    async read(name, into) {
      const info = find(tensors, name, path);
      const out = into ? sized(into, info.bytes, info) : new Uint8Array(info.bytes);
      await load(info, out);
      return out;
    },
    async readBytes(name, from, into) {
      const info = find(tensors, name, path);
      if (from < 0 || from + into.length > info.bytes)
        throw new RangeError(
          `tensor ${quote(name)}: expected a part of its ${info.bytes} bytes, got ${from} to ${from + into.length}`,
        );
      await load(info, into, from);
    },
    async readF32(name, into) {
      const info = floats(find(tensors, name, path));
      const count = product(info.shape);
      const out = into ? sized(into, count, info) : new Float32Array(count);
      await loadF32(info, 0, out);
      return out;
    },
    async readF16(name, into) {
      const info = floats(find(tensors, name, path));
      const count = product(info.shape);
      const out = into ? sized(into, count, info) : new Uint16Array(count);
      await loadF16(info, 0, out);
      return out;
    },
    async readPart(name, from, into) {
      const info = floats(find(tensors, name, path));
      if (from < 0 || from + into.length > product(info.shape))
        throw new RangeError(
          `tensor ${quote(name)}: expected a part of its ${product(info.shape)} elements, got ${from} to ${from + into.length}`,
        );
      await (into instanceof Float32Array ? loadF32(info, from, into) : loadF16(info, from, into));
    },
    close: () => file.close(),
  };
}

function find(tensors: ReadonlyMap<string, TensorInfo>, name: string, path: string): TensorInfo {
  const info = tensors.get(name);
  if (!info) throw new ModelError(`${path}: tensor ${quote(name)} is missing`);
  return info;
}

function floats(info: TensorInfo): TensorInfo {
  if (info.dtype !== 'F32' && info.dtype !== 'F16' && info.dtype !== 'BF16')
    throw new ModelError(
      `${info.file}: tensor ${quote(info.name)}: expected F32, F16 or BF16, got ${info.dtype}`,
    );
  return info;
}

function sized<T extends { readonly length: number }>(into: T, length: number, info: TensorInfo): T {
  if (into.length !== length)
    throw new RangeError(
      `tensor ${quote(info.name)}: expected an array of length ${length}, got one of ${into.length}`,
    );
  return into;
}

/** Fills `into` from a position. @throws ModelError, beginning with `what`, if the file has become shorter meanwhile. */
async function readAt(file: OpenFile, what: string, position: number, into: Uint8Array): Promise<void> {
  const read = await file.read(position, into);
  if (read < into.length) throw new ModelError(`${what}: the file ends after ${position + read} bytes`);
}
