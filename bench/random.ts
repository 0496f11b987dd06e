/** Returns a function that returns reproducible numbers in [0, 1), each a multiple of 2^-32 (Numerical Recipes' LCG). */
export function randomUniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
