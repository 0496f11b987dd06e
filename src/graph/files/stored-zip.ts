// Finds the entries of zip archives that are stored without compression, as torch.save writes them.

import { ModelError } from '../../errors.ts';

const END = 0x06054b50;
const END64_LOCATOR = 0x07064b50;
const END64 = 0x06064b50;
const CENTRAL = 0x02014b50;
const LOCAL = 0x04034b50;
const MOST_ENTRIES = 1_000_000;

const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

/** Returns whether bytes begin like a zip archive. */
export const isZip = (bytes: Uint8Array): boolean =>
  bytes.length >= 4 && bytes[0] === 0x50 && bytes[1] === 0x4b && bytes[2] === 3 && bytes[3] === 4;

/**
 * Returns the entries of an archive by name, as parts of `bytes`.
 * @throws ModelError, one sentence that begins with `file`, if the archive is broken or an entry is compressed.
 */
export function zipEntries(bytes: Uint8Array, file: string): ReadonlyMap<string, Uint8Array> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const refuse = (what: string): ModelError => new ModelError(`${file}: ${what}`);
  const within = (from: number, length: number): number => {
    if (!(from >= 0 && length >= 0 && from + length <= bytes.length))
      throw refuse('the archive is cut short');
    return from;
  };
  const u16 = (at: number) => view.getUint16(within(at, 2), true);
  const u32 = (at: number) => view.getUint32(within(at, 4), true);
  const u64 = (at: number) => Number(view.getBigUint64(within(at, 8), true));

  let end = bytes.length - 22;
  const least = Math.max(0, end - 0xffff);
  while (end >= least && u32(end) !== END) end--;
  if (end < least) throw refuse('the archive has no directory (is it cut short?)');
  let count = u16(end + 10);
  let at = u32(end + 16);
  if (end >= 20 && u32(end - 20) === END64_LOCATOR) {
    const end64 = u64(end - 12);
    if (u32(end64) !== END64) throw refuse('the archive has a broken directory');
    count = u64(end64 + 32);
    at = u64(end64 + 48);
  }
  if (count > MOST_ENTRIES) throw refuse(`expected at most ${MOST_ENTRIES} entries, got ${count}`);

  const entries = new Map<string, Uint8Array>();
  for (let k = 0; k < count; k++) {
    if (u32(at) !== CENTRAL) throw refuse('the archive has a broken directory');
    const [flags, method] = [u16(at + 8), u16(at + 10)];
    const [nameLength, extraLength, commentLength] = [u16(at + 28), u16(at + 30), u16(at + 32)];
    let [size, offset] = [u32(at + 24), u32(at + 42)];
    const nameAt = within(at + 46, nameLength);
    const name = utf8.decode(bytes.subarray(nameAt, nameAt + nameLength));
    if (method !== 0 || (flags & 1) !== 0)
      throw refuse(`"${name}" is compressed or encrypted, which torch.save does not do`);
    const extraEnd = nameAt + nameLength + extraLength;
    for (let extra = nameAt + nameLength; extra + 4 <= extraEnd; extra += 4 + u16(extra + 2)) {
      if (u16(extra) !== 1) continue;
      // Zip64: the extra field holds those of the sizes and the offset that did not fit, in this order.
      let wide = extra + 4;
      if (size === 0xffffffff) {
        size = u64(wide);
        wide += 8;
      }
      if (u32(at + 20) === 0xffffffff) wide += 8;
      if (offset === 0xffffffff) offset = u64(wide);
    }
    if (u32(offset) !== LOCAL) throw refuse(`"${name}" is not at the position in the directory`);
    const from = within(offset + 30 + u16(offset + 26) + u16(offset + 28), size);
    if (entries.has(name)) throw refuse(`"${name}" is an entry twice`);
    entries.set(name, bytes.subarray(from, from + size));
    at = extraEnd + commentLength;
  }
  return entries;
}
