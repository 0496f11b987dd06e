// SHA-256 (FIPS 180-4) of short texts, the same in Node and in browsers, where it would otherwise be asynchronous.

const PRIMES: number[] = [];
for (let n = 2; PRIMES.length < 64; n++) if (PRIMES.every((prime) => n % prime !== 0)) PRIMES.push(n);

/** Returns the first 32 bits after the binary point. */
const fraction = (x: number) => ((x - Math.floor(x)) * 2 ** 32) | 0;

const INITIAL = PRIMES.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)));
const ROUND_CONSTANTS = PRIMES.map((prime) => fraction(Math.cbrt(prime)));

const rotated = (x: number, bits: number) => (x >>> bits) | (x << (32 - bits));

/** Appends the bit 1, zeros, and the length in bits as 64-bit integer, up to a multiple of 64 bytes. */
function padded(bytes: Uint8Array): DataView {
  const block = new Uint8Array(Math.ceil((bytes.length + 9) / 64) * 64);
  block.set(bytes);
  block[bytes.length] = 0x80;
  const view = new DataView(block.buffer);
  view.setBigUint64(block.length - 8, BigInt(bytes.length * 8));
  return view;
}

/** Returns the SHA-256 digest of the UTF-8 bytes of a text. */
export function sha256(text: string): Uint8Array {
  const view = padded(new TextEncoder().encode(text));
  const state = Int32Array.from(INITIAL);
  const w = new Int32Array(64);
  for (let start = 0; start < view.byteLength; start += 64) {
    for (let i = 0; i < 16; i++) w[i] = view.getInt32(start + 4 * i);
    for (let i = 16; i < 64; i++) {
      const s0 = rotated(w[i - 15]!, 7) ^ rotated(w[i - 15]!, 18) ^ (w[i - 15]! >>> 3);
      const s1 = rotated(w[i - 2]!, 17) ^ rotated(w[i - 2]!, 19) ^ (w[i - 2]! >>> 10);
      w[i] = w[i - 16]! + s0 + w[i - 7]! + s1;
    }
    let [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0] = state;
    for (let i = 0; i < 64; i++) {
      const s1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25);
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + ROUND_CONSTANTS[i]! + w[i]!) | 0;
      const s0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22);
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
    }
    for (const [i, value] of [a, b, c, d, e, f, g, h].entries()) state[i] = state[i]! + value;
  }
  const digest = new DataView(new ArrayBuffer(32));
  for (const [i, word] of state.entries()) digest.setInt32(4 * i, word);
  return new Uint8Array(digest.buffer);
}
