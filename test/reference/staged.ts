// Staged elimination, written straight from the published algorithm (Li et al. 2023): slow, and sharing no
// code with `src`.

/** What the reference did with one image. */
export interface StagedOutcome {
  /** The surviving prompt. */
  readonly winner: number;
  /** Every evaluation in order: prompt, timestep, index of the noise. */
  readonly evaluations: readonly (readonly [prompt: number, t: number, noise: number])[];
  /** Mean error of each prompt over all its evaluations. */
  readonly means: readonly number[];
}

/** Runs the elimination on T = 1000 timesteps. Calls `error(prompt, t, noise)` once per evaluation. */
export function stagedReference(
  prompts: number,
  nSamples: readonly number[],
  toKeep: readonly number[],
  error: (prompt: number, t: number, noise: number) => number,
): StagedOutcome {
  const T = 1000;
  const M = Math.max(...nSamples);
  const G: number[] = [];
  for (let t = Math.floor(Math.floor(T / M) / 2); G.length < M; t += Math.floor(T / M)) G.push(t);

  const evaluations: [number, number, number][] = [];
  const noiseOf = new Map<number, number>();
  const errors: number[][] = Array.from({ length: prompts }, () => []);
  const mean = (prompt: number) => errors[prompt]!.reduce((a, b) => a + b, 0) / errors[prompt]!.length;
  let remaining = Array.from({ length: prompts }, (_, prompt) => prompt);

  for (let k = 0; k < nSamples.length; k++) {
    const n = nSamples[k]!;
    const selected: number[] = [];
    for (let i = Math.floor(Math.floor(G.length / n) / 2); i < G.length; i += Math.floor(G.length / n))
      selected.push(G[i]!);
    const fresh = selected.slice(0, n).filter((t) => !noiseOf.has(t));
    for (const t of fresh) {
      noiseOf.set(t, noiseOf.size);
      for (const prompt of remaining) {
        evaluations.push([prompt, t, noiseOf.get(t)!]);
        errors[prompt]!.push(error(prompt, t, noiseOf.get(t)!));
      }
    }
    const kept: number[] = [];
    while (kept.length < toKeep[k]! && kept.length < remaining.length) {
      let least = -1;
      for (const prompt of remaining)
        if (!kept.includes(prompt) && (least < 0 || mean(prompt) < mean(least))) least = prompt;
      kept.push(least);
    }
    remaining = kept.sort((a, b) => a - b);
  }
  return { winner: remaining[0]!, evaluations, means: errors.map((_, prompt) => mean(prompt)) };
}
