// Weights on disk: safetensors files and sharded sets of them, read lazily. Opening reads the headers only;
// a tensor's bytes are read by position when asked for, straight into the caller's memory if given, so a model
// larger than the host's memory can be put on the device tensor by tensor.

import type { FileHandle } from 'node:fs/promises';
import { open } from 'node:fs/promises';
import { endianness } from 'node:os';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { ModelError, UnsupportedError } from '../../errors.ts';
import { bf16ToF32, f16ToF32, f32ToF16, MAX_F16 } from '../../kernels/device/half.ts';
import type { Elements } from '../../kernels/device/routine.ts';
import { checked, quote, readJson, reason } from './json.ts';
import { DTYPE_BITS, headerLength, parseHeader, type TensorInfo } from './safetensors-header.ts';

export type { SafetensorsDtype, TensorInfo } from './safetensors-header.ts';

/** An open safetensors file, or a set of shards behind one index. Reads may overlap. */
export interface TensorFile {
  /** The file, or the index of a sharded set. */
  readonly path: string;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The files' `__metadata__`; of shards that disagree, the first one's. */
  readonly metadata: ReadonlyMap<string, string>;
  /** The tensor's bytes as they are in the file, into `into` (of exactly that length) or a new array. */
  read(name: string, into?: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>>;
  /** The tensor as f32, exact for F32, F16 and BF16; other dtypes throw `ModelError`. */
  readF32(name: string, into?: Float32Array<ArrayBuffer>): Promise<Float32Array<ArrayBuffer>>;
  /**
   * The tensor as f16 bits for kernels that store halves: F16 as it is, F32 and BF16 rounded to nearest even.
   * A finite value from 65520 on has no f16; it throws `ModelError` rather than being saturated, because a
   * network with clipped weights still runs and is silently another network. Values under 2^-25 become zero.
   */
  readF16(name: string, into?: Uint16Array<ArrayBuffer>): Promise<Uint16Array<ArrayBuffer>>;
  /**
   * Part of a tensor, from its element `from` on: as f32 into floats, or as `readF16` gives it into the bits of halves.
   * Throws `RangeError` where the tensor ends before the part.
   */
  readPart(name: string, from: number, into: Elements): Promise<void>;
  /** Closes the files; reads under way are finished first. */
  close(): Promise<void>;
}

/** Elements converted at a time where a conversion cannot happen in place: 1 MiB of f32. */
const CHUNK = 1 << 18;

/** Most bytes asked of the system in one read; some refuse 2 GiB and more. */
const MAX_READ = 1 << 30;

/**
 * Opens a safetensors file, or the shards behind an index when `path` ends in `.json`.
 * Throws `ModelError` (one sentence naming file and tensor) for anything that is not a sound file.
 */
export async function openSafetensors(path: string): Promise<TensorFile> {
  if (endianness() !== 'LE')
    throw new UnsupportedError('safetensors: this machine is big-endian, the format is not');
  return path.endsWith('.json') ? openShards(path) : openFile(path);
}

async function openFile(path: string): Promise<TensorFile> {
  let handle: FileHandle;
  try {
    handle = await open(path, 'r');
  } catch (error) {
    throw new ModelError(`${path}: ${reason(error)}`);
  }
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) throw new ModelError(`${path}: is not a regular file`);
    const prefix = new Uint8Array(Math.min(8, stat.size));
    await readAt(handle, path, 0, prefix);
    const json = new Uint8Array(headerLength(prefix, path, stat.size));
    await readAt(handle, path, 8, json);
    const { tensors, metadata } = parseHeader(json, path, stat.size);
    return singleFile(path, tensors, metadata, handle);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

const indexSchema = z.object({
  metadata: z.record(z.string(), z.unknown()).optional(),
  weight_map: z.record(z.string(), z.string()),
});

/** A shard must be named by a plain relative path: an index may not make us read elsewhere. */
function shardPath(index: string, shard: string): string {
  const inside =
    /^[^\\/:\0]+(?:\/[^\\/:\0]+)*$/.test(shard) &&
    !shard.split('/').some((part) => part === '..' || part === '.');
  if (!inside || !shard.endsWith('.safetensors'))
    throw new ModelError(`${index}: the shard ${quote(shard)} is not a .safetensors file inside the folder`);
  return join(dirname(index), shard);
}

async function openShards(index: string): Promise<TensorFile> {
  const raw = await readJson(index);
  const { weight_map: weightMap } = checked(indexSchema, raw, index);
  // zod drops `__proto__`; a reader that did not see the entry would miss that it is there
  const listed = (raw as { weight_map: object }).weight_map;
  if (Object.hasOwn(listed, '__proto__'))
    throw new ModelError(`${index}: tensor "__proto__" has a name that is not accepted`);
  const shards = new Map<string, TensorFile>();
  const closeAll = async (): Promise<void> => {
    await Promise.all([...shards.values()].map((shard) => shard.close()));
  };
  try {
    const tensors = new Map<string, TensorInfo>();
    for (const [name, shard] of Object.entries(weightMap)) {
      const path = shardPath(index, shard);
      if (!shards.has(path)) shards.set(path, await openFile(path));
      const info = shards.get(path)!.tensors.get(name);
      if (!info)
        throw new ModelError(`${path}: tensor ${quote(name)} is missing, ${index} says that it is here`);
      tensors.set(name, info);
    }
    for (const [path, shard] of shards)
      for (const name of shard.tensors.keys())
        if (tensors.get(name)?.file !== path)
          throw new ModelError(`${path}: tensor ${quote(name)} is not expected here by ${index}`);
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
  handle: FileHandle,
): TensorFile {
  const load = (info: TensorInfo, into: Uint8Array, from = 0): Promise<void> =>
    readAt(handle, info.file, info.begin + from, into, info.name);

  /** Fills `out` with the elements from `from` on. */
  async function loadF32(info: TensorInfo, from: number, out: Float32Array): Promise<void> {
    const width = DTYPE_BITS[info.dtype] / 8;
    // 16-bit values go to the last half of the output and are widened from the front, in place
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
    async readF32(name, into) {
      const info = floats(find(tensors, name, path));
      const count = elements(info);
      const out = into ? sized(into, count, info) : new Float32Array(count);
      await loadF32(info, 0, out);
      return out;
    },
    async readF16(name, into) {
      const info = floats(find(tensors, name, path));
      const count = elements(info);
      const out = into ? sized(into, count, info) : new Uint16Array(count);
      await loadF16(info, 0, out);
      return out;
    },
    async readPart(name, from, into) {
      const info = floats(find(tensors, name, path));
      if (from < 0 || from + into.length > elements(info))
        throw new RangeError(
          `tensor ${quote(name)}: elements ${from} to ${from + into.length} of ${elements(info)}`,
        );
      await (into instanceof Float32Array ? loadF32(info, from, into) : loadF16(info, from, into));
    },
    close: () => handle.close(),
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
      `${info.file}: tensor ${quote(info.name)} is ${info.dtype}, wanted F32, F16 or BF16`,
    );
  return info;
}

const elements = (info: TensorInfo): number => info.shape.reduce((product, size) => product * size, 1);

function sized<T extends { readonly length: number }>(into: T, length: number, info: TensorInfo): T {
  if (into.length !== length)
    throw new RangeError(
      `tensor ${quote(info.name)}: the array given has length ${into.length}, wanted ${length}`,
    );
  return into;
}

/** Fills `into` from a position; a file that has become shorter meanwhile is a `ModelError`. */
async function readAt(
  handle: FileHandle,
  file: string,
  position: number,
  into: Uint8Array,
  tensor?: string,
): Promise<void> {
  const at = tensor === undefined ? file : `${file}: tensor ${quote(tensor)}`;
  let done = 0;
  while (done < into.length) {
    const length = Math.min(into.length - done, MAX_READ);
    let bytesRead: number;
    try {
      ({ bytesRead } = await handle.read(into, done, length, position + done));
    } catch (error) {
      throw new ModelError(`${at}: ${reason(error)}`);
    }
    if (bytesRead === 0) throw new ModelError(`${at}: the file ends after ${position + done} bytes`);
    done += bytesRead;
  }
}
