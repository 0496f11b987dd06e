// The attacks' random numbers: words of Philox under a key from SHA-256, and what is made of them.

import { describe, expect, test } from 'vitest';
import { philox } from '../../../src/kernels/diffusion/philox.ts';
import { randomOf } from '../../../src/pipeline/attacking/random.ts';
import { sha256 } from '../../../src/pipeline/attacking/sha256.ts';

/** The first words of a stream, as they are defined. */
function wordsOf(seed: number, key: string, purpose: string, count: number): number[] {
  const digest = new DataView(sha256(`${seed}\0${key}\0${purpose}`).buffer);
  const philoxKey = [digest.getUint32(0, true), digest.getUint32(4, true)] as const;
  return Array.from({ length: count }, (_, i) => philox([Math.floor(i / 4), 0, 0, 0], philoxKey)[i % 4]!);
}

const STREAM = [7, 'a/b.png', 'pgd 0'] as const;
const words = wordsOf(...STREAM, 12);

describe('a stream', () => {
  test('uniform: the middle of the interval of each word', () => {
    const random = randomOf(...STREAM);
    expect(words.map(() => random.uniform())).toEqual(words.map((word) => (word + 0.5) / 2 ** 32));
  });

  test('sign: 1 for an odd word', () => {
    const random = randomOf(...STREAM);
    expect(words.map(() => random.sign())).toEqual(words.map((word) => (word % 2 === 1 ? 1 : -1)));
    expect(new Set(words.map((word) => word % 2)).size).toBe(2);
  });

  test('below: integers in equal parts of the interval', () => {
    const random = randomOf(...STREAM);
    expect(words.map(() => random.below(5))).toEqual(words.map((word) => Math.floor((5 * word) / 2 ** 32)));
  });

  test('normal: pairs by Box and Muller', () => {
    const random = randomOf(...STREAM);
    for (let i = 0; i < words.length; i += 2) {
      const [radius, turn] = [words[i]!, words[i + 1]!].map((word) => (word + 0.5) / 2 ** 32) as [
        number,
        number,
      ];
      const [x, y] = [random.normal(), random.normal()];
      expect(Math.hypot(x, y)).toBeCloseTo(Math.sqrt(-2 * Math.log(radius)), 12);
      expect(Math.atan2(y, x)).toBeCloseTo(2 * Math.PI * (turn < 0.5 ? turn : turn - 1), 12);
    }
  });

  test('differs with the seed, the key and the purpose', () => {
    const first = (seed: number, key: string, purpose: string) => randomOf(seed, key, purpose).uniform();
    const values = [first(7, 'a', 'p'), first(8, 'a', 'p'), first(7, 'b', 'p'), first(7, 'a', 'q')];
    expect(new Set(values).size).toBe(4);
  });
});
