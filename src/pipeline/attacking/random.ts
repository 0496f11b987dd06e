// The attacks' random numbers: a stream for each (seed, key of a file, purpose). It is the same on every
// machine, and independent of anything else that runs.

import { philox } from '../../kernels/diffusion/philox.ts';
import { sha256 } from './sha256.ts';

/** A stream of random numbers. */
export interface Random {
  /** Uniform in (0, 1). */
  uniform(): number;
  /** Standard normal. */
  normal(): number;
  /** An integer in [0, count). */
  below(count: number): number;
  /** -1 or 1. */
  sign(): number;
}

/** Returns the stream for a seed (32 bits), the key of a file and a purpose. */
export function randomOf(seed: number, key: string, purpose: string): Random {
  const digest = new DataView(sha256(`${seed}\0${key}\0${purpose}`).buffer);
  const philoxKey = [digest.getUint32(0, true), digest.getUint32(4, true)] as const;
  let block = 0;
  let words: readonly number[] = [];
  let at = 4;
  const word = (): number => {
    if (at === 4) {
      words = philox([block >>> 0, Math.floor(block / 2 ** 32), 0, 0], philoxKey);
      block++;
      at = 0;
    }
    return words[at++]!;
  };
  const uniform = () => (word() + 0.5) / 2 ** 32;
  let spare: number | undefined;
  return {
    uniform,
    below: (count) => Math.floor(uniform() * count),
    sign: () => (word() & 1 ? 1 : -1),
    normal() {
      if (spare !== undefined) {
        const value = spare;
        spare = undefined;
        return value;
      }
      const radius = Math.sqrt(-2 * Math.log(uniform()));
      const turn = 2 * Math.PI * uniform();
      spare = radius * Math.sin(turn);
      return radius * Math.cos(turn);
    },
  };
}
