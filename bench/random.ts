/** Returns a generator of reproducible numbers in [0, 1), multiples of 2^-32 (the LCG of Numerical Recipes). */
export function randomUniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
