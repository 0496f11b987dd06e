// Finds the entries of zip archives that are stored without compression, as torch.save writes them. Only the directory at the
// end of the file is read.

import { ModelError } from '../../errors.ts';
import type { OpenFile } from './files.ts';

const END = 0x06054b50;
const END64_LOCATOR = 0x07064b50;
const END64 = 0x06064b50;
const CENTRAL = 0x02014b50;
const LOCAL = 0x04034b50;
const LOCAL_BYTES = 30;
const MOST_ENTRIES = 1_000_000;
const MOST_DIRECTORY_BYTES = 100_000_000;

const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

/** Returns whether bytes begin like a zip archive. */
export const isZip = (bytes: Uint8Array): boolean =>
  bytes.length >= 4 && bytes[0] === 0x50 && bytes[1] === 0x4b && bytes[2] === 3 && bytes[3] === 4;

/** An entry: where its local header is in the file, and its bytes. */
interface ZipEntry {
  readonly name: string;
  readonly header: number;
  readonly size: number;
}

/** Reads a range of a file. @throws ModelError, beginning with `path`, if the file ends before. */
async function readRange(file: OpenFile, path: string, from: number, length: number): Promise<DataView> {
  if (!(from >= 0 && length >= 0 && from + length <= file.size))
    throw new ModelError(`${path}: the archive is cut short`);
  const bytes = new Uint8Array(length);
  if ((await file.read(from, bytes)) < length) throw new ModelError(`${path}: the archive is cut short`);
  return new DataView(bytes.buffer);
}

const u64 = (view: DataView, at: number): number => Number(view.getBigUint64(at, true));

/** Returns where the directory is, and how many entries it has. */
async function findDirectory(file: OpenFile, path: string) {
  const tailAt = Math.max(0, file.size - 22 - 0xffff);
  const tail = await readRange(file, path, tailAt, file.size - tailAt);
  let end = tail.byteLength - 22;
  while (end >= 0 && tail.getUint32(end, true) !== END) end--;
  if (end < 0) throw new ModelError(`${path}: the archive has no directory (is it cut short?)`);
  if (end < 20 || tail.getUint32(end - 20, true) !== END64_LOCATOR)
    return {
      count: tail.getUint16(end + 10, true),
      size: tail.getUint32(end + 12, true),
      at: tail.getUint32(end + 16, true),
    };
  const end64 = await readRange(file, path, u64(tail, end - 12), 56);
  if (end64.getUint32(0, true) !== END64) throw new ModelError(`${path}: the archive has a broken directory`);
  return { count: u64(end64, 32), size: u64(end64, 40), at: u64(end64, 48) };
}

/**
 * Returns the entries of an archive by name.
 * @throws ModelError, one sentence that begins with `path`, if the archive is broken or an entry is compressed.
 */
export async function zipEntries(file: OpenFile, path: string): Promise<ReadonlyMap<string, ZipEntry>> {
  const refuse = (what: string): ModelError => new ModelError(`${path}: ${what}`);
  const broken = () => refuse('the archive has a broken directory');
  const { count, size, at: start } = await findDirectory(file, path);
  if (count > MOST_ENTRIES) throw refuse(`expected at most ${MOST_ENTRIES} entries, got ${count}`);
  if (size > MOST_DIRECTORY_BYTES) throw broken();
  const view = await readRange(file, path, start, size);
  const bytes = new Uint8Array(view.buffer);
  const within = (from: number, length: number): number => {
    if (from + length > bytes.length) throw broken();
    return from;
  };
  const u16 = (at: number) => view.getUint16(within(at, 2), true);
  const u32 = (at: number) => view.getUint32(within(at, 4), true);
  const wide = (at: number) => u64(view, within(at, 8));

  const entries = new Map<string, ZipEntry>();
  let at = 0;
  for (let k = 0; k < count; k++) {
    if (u32(at) !== CENTRAL) throw broken();
    const [flags, method] = [u16(at + 8), u16(at + 10)];
    const [nameLength, extraLength, commentLength] = [u16(at + 28), u16(at + 30), u16(at + 32)];
    let [size, header] = [u32(at + 24), u32(at + 42)];
    const nameAt = within(at + 46, nameLength);
    const name = utf8.decode(bytes.subarray(nameAt, nameAt + nameLength));
    if (method !== 0 || (flags & 1) !== 0)
      throw refuse(`${JSON.stringify(name)} is compressed or encrypted, which torch.save does not do`);
    const extraEnd = nameAt + nameLength + extraLength;
    for (let extra = nameAt + nameLength; extra + 4 <= extraEnd; extra += 4 + u16(extra + 2)) {
      if (u16(extra) !== 1) continue;
      // Zip64: the extra field holds those of the sizes and the offset that did not fit, in this order.
      let field = extra + 4;
      if (size === 0xffffffff) {
        size = wide(field);
        field += 8;
      }
      if (u32(at + 20) === 0xffffffff) field += 8;
      if (header === 0xffffffff) header = wide(field);
    }
    if (entries.has(name)) throw refuse(`${JSON.stringify(name)} is an entry twice`);
    entries.set(name, { name, header, size });
    at = extraEnd + commentLength;
  }
  return entries;
}

/** Returns the position of an entry's bytes. @throws ModelError if its local header is not where the directory says. */
export async function entryBegin(
  file: OpenFile,
  path: string,
  { name, header, size }: ZipEntry,
): Promise<number> {
  const local = await readRange(file, path, header, LOCAL_BYTES);
  if (local.getUint32(0, true) !== LOCAL)
    throw new ModelError(`${path}: ${JSON.stringify(name)} is not at the position in the directory`);
  const begin = header + LOCAL_BYTES + local.getUint16(26, true) + local.getUint16(28, true);
  if (!(begin + size <= file.size)) throw new ModelError(`${path}: the archive is cut short`);
  return begin;
}

/** Reads an entry. */
export async function readEntry(file: OpenFile, path: string, entry: ZipEntry): Promise<Uint8Array> {
  const begin = await entryBegin(file, path, entry);
  return new Uint8Array((await readRange(file, path, begin, entry.size)).buffer);
}
