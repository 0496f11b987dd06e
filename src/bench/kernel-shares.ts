// Where the time of a run goes: the times of its launches, each measured alone, summed by kernel.

/** What the launches of one kernel take together, in milliseconds and as a share of the sum of all launches. */
export interface KernelShare {
  readonly name: string;
  readonly launches: number;
  readonly ms: number;
  readonly share: number;
}

/** Sums times by name, largest first. `names` and `times` (milliseconds) have one entry per launch. */
export function kernelShares(names: readonly string[], times: readonly number[]): KernelShare[] {
  const sum = times.reduce((total, ms) => total + ms, 0);
  const byName = new Map<string, { ms: number; launches: number }>();
  times.forEach((ms, i) => {
    const before = byName.get(names[i]!) ?? { ms: 0, launches: 0 };
    byName.set(names[i]!, { ms: before.ms + ms, launches: before.launches + 1 });
  });
  return [...byName]
    .map(([name, { ms, launches }]) => ({ name, launches, ms, share: ms / sum }))
    .sort((a, b) => b.ms - a.ms);
}

/** Returns a share as a line of a table. */
export const shareLine = ({ name, launches, ms, share }: KernelShare): string =>
  `${name.padEnd(60)} ${String(launches).padStart(4)} ${ms.toFixed(2).padStart(9)} ms ${(100 * share).toFixed(1).padStart(5)} %`;
