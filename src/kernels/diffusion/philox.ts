// Counter-based noise: Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011) and
// Box-Muller, in WGSL and on the host. A noise value is a pure function of (seed, stream, noise index, element), so it
// is recomputed wherever it is needed and never stored, and all candidates get the same noise.
//
// key = seed (low word, high word); counter = (element / 4, noise index, 0, stream); a counter yields 4 normals.

const MULTIPLIERS = [0xd2511f53, 0xcd9e8d57] as const;
const WEYL = [0x9e3779b9, 0xbb67ae85] as const;
const ROUNDS = 10;

export interface Seed {
  /** 64 bits; higher bits are ignored. */
  readonly seed: bigint;
  /** Distinguishes uses of one seed; default 0. */
  readonly stream?: number;
}

/** Returns the key of a seed: its low word, then its high word. */
export const keyOf = (seed: bigint): readonly [number, number] => [
  Number(seed & 0xffffffffn),
  Number((seed >> 32n) & 0xffffffffn),
];

/**
 * Packs noise indices with the seed of each sample in the form that kernels read: rows of
 * (noise index, low word of the seed, high word of the seed, 0).
 *
 * @param noise n noise indices.
 * @param seedOf the seed of sample i; bits above the 64th are ignored.
 * @return 4 n words.
 */
export function noiseKeys(noise: ArrayLike<number>, seedOf: (i: number) => bigint): Uint32Array<ArrayBuffer> {
  const keys = new Uint32Array(4 * noise.length);
  let last: bigint | undefined;
  let key: readonly [number, number] = [0, 0];
  for (let i = 0; i < noise.length; i++) {
    const seed = seedOf(i);
    // Most samples have the seed of the one before, and arithmetic with a bigint is slow.
    if (seed !== last) key = keyOf(seed);
    last = seed;
    keys[4 * i] = noise[i]!;
    keys[4 * i + 1] = key[0];
    keys[4 * i + 2] = key[1];
  }
  return keys;
}

/**
 * WGSL: `normals(block, noise, stream, seed) -> vec4f`, elements 4 block .. 4 block + 3 of noise index `noise`.
 *
 * Uniforms are (k + 1/2) / 2^23, exact in f32 and never 0 or 1. Logarithm, sine and cosine are polynomials on reduced
 * arguments, because drivers' own functions differ (SwiftShader's sine is off by 2e-4, and an absolute error of 3e-7 in
 * a logarithm near 0 becomes 5e-4 in its root). The result is within 2e-6 of the exact normal on every driver.
 */
export const PHILOX = /* wgsl */ `
/** Returns the high word of a b, computed from four products of 16 bits. */
fn multiplyHigh(a: u32, b: u32) -> u32 {
  let low = (a & 0xffff) * (b & 0xffff);
  let middle = (a >> 16) * (b & 0xffff) + (low >> 16);
  let other = (a & 0xffff) * (b >> 16) + (middle & 0xffff);
  return (a >> 16) * (b >> 16) + (middle >> 16) + (other >> 16);
}

fn philox(counter: vec4u, seed: vec2u) -> vec4u {
  var c = counter;
  var key = seed;
  for (var round = 0; round < ${ROUNDS}; round++) {
    let high0 = multiplyHigh(${MULTIPLIERS[0]}u, c.x);
    let high1 = multiplyHigh(${MULTIPLIERS[1]}u, c.z);
    c = vec4u(high1 ^ c.y ^ key.x, ${MULTIPLIERS[1]}u * c.z, high0 ^ c.w ^ key.y, ${MULTIPLIERS[0]}u * c.x);
    key += vec2u(${WEYL[0]}u, ${WEYL[1]}u);
  }
  return c;
}

/** ln v for normal v > 0: v = 2^k m with m in [sqrt 1/2, sqrt 2), and ln m = 2 artanh((m - 1) / (m + 1)). */
fn naturalLog(v: vec2f) -> vec2f {
  let bits = bitcast<vec2u>(v) + (0x3f800000u - 0x3f3504f3u);
  let k = vec2f(vec2i(bits >> vec2u(23)) - 127);
  let f = bitcast<vec2f>((bits & vec2u(0x7fffff)) + 0x3f3504f3u) - 1;
  let s = f / (2 + f);
  let z = s * s;
  return k * 0.69314718056 + 2 * s * (1 + z * (1. / 3 + z * (1. / 5 + z * (1. / 7 + z * (1. / 9)))));
}

/**
 * Two independent normals from each pair of uniforms: (r cos, r sin) of (radius, turn), as (x, y, x', y').
 */
fn boxMuller(radius: vec2f, turn: vec2f) -> vec4f {
  let r = sqrt(-2 * naturalLog(radius));
  let quarter = floor(4 * turn + 0.5);
  let a = (4 * turn - quarter) * 1.57079632679;
  let z = a * a;
  let s = a * (1 + z * (-1. / 6 + z * (1. / 120 + z * (-1. / 5040 + z * (1. / 362880)))));
  let c = 1 + z * (-0.5 + z * (1. / 24 + z * (-1. / 720 + z * (1. / 40320))));
  let q = vec2u(quarter);
  let swap = (q & vec2u(1)) == vec2u(1);
  let x = select(c, s, swap) * select(vec2f(1), vec2f(-1), ((q + 1) & vec2u(2)) == vec2u(2));
  let y = select(s, c, swap) * select(vec2f(1), vec2f(-1), (q & vec2u(2)) == vec2u(2));
  return vec4f(r.x * x.x, r.x * y.x, r.y * x.y, r.y * y.y);
}

fn normals(block: u32, noise: u32, stream: u32, seed: vec2u) -> vec4f {
  let words = philox(vec4u(block, noise, 0, stream), seed);
  let v = (vec4f(words >> vec4u(9)) + 0.5) * ${2 ** -23};
  return boxMuller(v.xz, v.yw);
}
`;

function multiplyHigh(a: number, b: number): number {
  const low = (a & 0xffff) * (b & 0xffff);
  const middle = (a >>> 16) * (b & 0xffff) + Math.floor(low / 65536);
  const other = (a & 0xffff) * (b >>> 16) + (middle % 65536);
  return (a >>> 16) * (b >>> 16) + Math.floor(middle / 65536) + Math.floor(other / 65536);
}

export type Words = readonly [number, number, number, number];

/** Computes Philox4x32-10 on the host: four words of 32 bits. */
export function philox(counter: Words, key: readonly [number, number]): Words {
  let [x, y, z, w] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const next: Words = [
      (multiplyHigh(MULTIPLIERS[1], z) ^ y ^ k0) >>> 0,
      Math.imul(MULTIPLIERS[1], z) >>> 0,
      (multiplyHigh(MULTIPLIERS[0], x) ^ w ^ k1) >>> 0,
      Math.imul(MULTIPLIERS[0], x) >>> 0,
    ];
    [x, y, z, w] = next;
    k0 = (k0 + WEYL[0]) >>> 0;
    k1 = (k1 + WEYL[1]) >>> 0;
  }
  return [x, y, z, w];
}

/** Computes the device's `normals` on the host, in f64 from the same words: elements 4 block .. 4 block + 3. */
export function normals({ seed, stream = 0 }: Seed, noise: number, block: number): Words {
  const words = philox([block >>> 0, noise >>> 0, 0, stream >>> 0], keyOf(seed));
  const [a, b, c, d] = words.map((word) => ((word >>> 9) + 0.5) * 2 ** -23) as unknown as Words;
  const [r, s] = [Math.sqrt(-2 * Math.log(a)), Math.sqrt(-2 * Math.log(c))];
  const [turn, other] = [2 * Math.PI * b, 2 * Math.PI * d];
  return [r * Math.cos(turn), r * Math.sin(turn), s * Math.cos(other), s * Math.sin(other)];
}

/** Returns the normal that every kernel uses for element `element` (row-major in c, h, w) of noise index `noise`. */
export const normal = (seed: Seed, noise: number, element: number): number =>
  normals(seed, noise, Math.floor(element / 4))[element % 4]!;
