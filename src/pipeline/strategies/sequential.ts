// The default: candidates are dropped one by one, as soon as what is left of the grid is unlikely to save them.

import type { Level } from '../../graph/model.ts';
import { UsageError } from '../errors.ts';
import { studentTail } from '../statistics.ts';
import { bestOf, type Strategy, type Trial, weightsOf } from '../trial.ts';

/** Options of the sequential strategy. */
export interface SequentialOptions {
  /** Least probability with which the label is that of the exhaustive run; 0.99. */
  readonly confidence?: number;
  readonly first?: number;
  readonly prior?: number;
}

export function sequential({ confidence = 0.99, first = 2, prior = 4 }: SequentialOptions = {}): Strategy {
  if (!(confidence > 0 && confidence < 1))
    throw new UsageError(`sequential: confidence in (0, 1), got ${confidence}`);
  return (candidates, levels) => {
    const order = levels.map((_, l) => l).filter((l) => levels[l]!.weight > 0);
    return (trial) => {
      const n = trial.visited.length;
      const { survivors } = trial;
      if (n === 0) return { survivors, levels: order.slice(0, first) };
      const left = order.slice(n);
      const best = bestOf(trial, survivors);
      if (left.length === 0) return { survivors: [best], levels: [] };
      const rivals = survivors.filter((c) => c !== best);
      const scale = levelScales(trial);
      const risks = rivals.map((c) => ({ c, risk: risk(trial, c, best, left, levels, scale, prior) }));
      const alpha = (1 - confidence) / (candidates.length - 1);
      const kept = risks.filter(({ risk }) => risk > alpha).map(({ c }) => c);
      const next = survivors.filter((c) => c === best || kept.includes(c));
      const open = next.some((c) => candidates[c]!.classidx !== candidates[best]!.classidx);
      return { survivors: next, levels: open ? left.slice(0, 1) : [] };
    };
  };
}
const levelScales = (_: Trial): number => 1;
function risk(
  trial: Trial,
  c: number,
  best: number,
  left: readonly number[],
  levels: readonly Level[],
  _s: number,
  prior: number,
): number {
  const weights = weightsOf(trial);
  const n = weights.length;
  const diffs = (a: number) => trial.errors.map((row) => row[a]! - row[best]!);
  const W = weights.reduce((a, b) => a + b, 0);
  const Q = weights.reduce((a, b) => a + b * b, 0);
  const mean = (d: number[]) => d.reduce((a, x, k) => a + weights[k]! * x, 0) / W;
  const ss = (d: number[]) => {
    const m = mean(d);
    return d.reduce((a, x) => a + (x - m) ** 2, 0);
  };
  const others = trial.survivors.filter((a) => a !== best);
  let pool = 0;
  for (const a of others) pool += ss(diffs(a)) / (n - 1);
  pool /= others.length;
  const d = diffs(c);
  const df = n - 1 + prior;
  const s2 = (ss(d) + prior * pool) / df;
  const Wr = left.reduce((a, l) => a + levels[l]!.weight, 0);
  const Qr = left.reduce((a, l) => a + levels[l]!.weight ** 2, 0);
  const m = mean(d);
  const z = (m * (W + Wr)) / Math.sqrt(s2 * ((Wr * Wr * Q) / (W * W) + Qr));
  return studentTail(z, df);
}
