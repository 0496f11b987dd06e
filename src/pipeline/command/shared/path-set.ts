// A compact set of paths. A run that is resumed may have finished millions of images.

import { createHash } from 'node:crypto';
import { bytesOfPath } from '../../escaping.ts';

const WORDS = 4;

/**
 * Remembers paths by 128 bits of their SHA-256. A path takes 32 to 64 bytes, whatever its length. Among a million paths,
 * the probability that any two are confused is 1e-27.
 */
export class PathSet {
  #slots = new Uint32Array(1024 * WORDS);
  #size = 0;

  /** The number of paths in the set. */
  get size(): number {
    return this.#size;
  }

  /** Adds a path. Returns whether it is new. */
  add(path: string): boolean {
    const key = keyOf(path);
    const at = find(this.#slots, key);
    if (occupied(this.#slots, at)) return false;
    this.#slots.set(key, at);
    this.#size++;
    if (this.#size * WORDS * 2 > this.#slots.length) this.#grow();
    return true;
  }

  /** Returns whether a path was added. */
  has(path: string): boolean {
    return occupied(this.#slots, find(this.#slots, keyOf(path)));
  }

  #grow(): void {
    const old = this.#slots;
    const slots = new Uint32Array(old.length * 2);
    for (let at = 0; at < old.length; at += WORDS) {
      if (!occupied(old, at)) continue;
      const key = old.subarray(at, at + WORDS);
      slots.set(key, find(slots, key));
    }
    this.#slots = slots;
  }
}

function keyOf(path: string): Uint32Array {
  const digest = createHash('sha256').update(bytesOfPath(path)).digest();
  const key = Uint32Array.from({ length: WORDS }, (_, i) => digest.readUInt32LE(i * 4));
  if (key.every((word) => word === 0)) key[0] = 1; // all zeros mark a free slot
  return key;
}

const occupied = (slots: Uint32Array, at: number) =>
  (slots[at]! | slots[at + 1]! | slots[at + 2]! | slots[at + 3]!) !== 0;

/** Finds the slot of a key, or the free slot for it (open addressing with linear probing). */
function find(slots: Uint32Array, key: Uint32Array): number {
  const mask = slots.length / WORDS - 1;
  for (let slot = key[0]! & mask; ; slot = (slot + 1) & mask) {
    const at = slot * WORDS;
    if (!occupied(slots, at)) return at;
    if (key.every((word, i) => slots[at + i] === word)) return at;
  }
}
