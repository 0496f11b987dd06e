// 16-bit floats on the host. Weights come as f16 or bf16, and kernels that store 16-bit weights read f16.
// Node 20 has no Float16Array, so a Uint16Array holds the bits, two values per u32 in memory order.

/** The largest finite f16. */
export const MAX_F16 = 65504;

/** f32 bits of every f16, computed on first use. */
let f32BitsOfF16: Uint32Array | undefined;

function f16Table(): Uint32Array {
  if (f32BitsOfF16) return f32BitsOfF16;
  const table = new Uint32Array(65536);
  const value = new Float32Array(1);
  const bits = new Uint32Array(value.buffer);
  for (let h = 0; h < 65536; h++) {
    const exponent = (h >> 10) & 31;
    const fraction = h & 1023;
    if (exponent === 31) bits[0] = 0x7f800000 | (fraction << 13);
    else value[0] = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
    table[h] = bits[0]! | ((h & 0x8000) << 16);
  }
  f32BitsOfF16 = table;
  return table;
}

/**
 * Widens f16 bits to f32, exactly (infinities and NaN payloads too). `out` may share its memory with `half`
 * if `half` lies in the last half of it.
 */
export function f16ToF32(half: Uint16Array, out: Float32Array): void {
  const table = f16Table();
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < half.length; i++) bits[i] = table[half[i]!]!;
}

/** Widens bf16 bits to f32, exactly; `out` may share its memory with `brain` as in `f16ToF32`. */
export function bf16ToF32(brain: Uint16Array, out: Float32Array): void {
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < brain.length; i++) bits[i] = brain[i]! << 16;
}

/**
 * Rounds f32 to f16 bits, to nearest with ties to even, as a GPU or PyTorch does: magnitudes under 2^-25 become zero,
 * NaN stays NaN, and infinities stay. Finite values of magnitude 65520 or more do not fit f16 and become infinity.
 * Returns the index of the first such value, so that the caller can reject it, or -1 if all values fit.
 */
export function f32ToF16(values: Float32Array, out: Uint16Array): number {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  let overflow = -1;
  for (let i = 0; i < bits.length; i++) {
    const b = bits[i]!;
    const sign = (b >>> 16) & 0x8000;
    const magnitude = b & 0x7fffffff;
    let h: number;
    if (magnitude >= 0x7f800000) {
      h = magnitude === 0x7f800000 ? 0x7c00 : 0x7e00 | ((magnitude >>> 13) & 0x3ff);
    } else if (magnitude >= 0x477ff000) {
      h = 0x7c00;
      if (overflow < 0) overflow = i;
    } else if (magnitude >= 0x38800000) {
      h = (magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13;
    } else if (magnitude > 0x33000000) {
      const shift = 126 - (magnitude >>> 23);
      const fraction = (magnitude & 0x7fffff) | 0x800000;
      h = fraction >>> shift;
      const rest = fraction & ((1 << shift) - 1);
      const tie = 1 << (shift - 1);
      if (rest > tie || (rest === tie && (h & 1) === 1)) h++;
    } else {
      h = 0;
    }
    out[i] = sign | h;
  }
  return overflow;
}
