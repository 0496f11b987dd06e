// Auto-PGD (Croce and Hein, ICML 2020, algorithm 1): gradient ascent with momentum. When the loss has stopped
// rising, it halves its step and returns to its best point.

import type { OptionValues } from '../option.ts';
import { type Attack, type AttackTrial, startIn } from './attack.ts';
import type { AttackEntry } from './attack-entry.ts';
import { ascent, project } from './ball.ts';
import { crossEntropy, dlr, type LossOf, targetedCrossEntropy, targetedDlr, targetOf } from './losses.ts';

/** Share of the new step in each move; the rest is momentum. */
const ALPHA = 0.75;

/** Share of the steps between two checkpoints that should have raised the loss. */
const RHO = 0.75;

/**
 * Returns the steps after which the size of the step is reconsidered: ceil(p_j steps), with p_0 = 0, p_1 =
 * 0.22 and p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06).
 */
export function checkpoints(steps: number): number[] {
  const marks: number[] = [];
  for (let [p, gap] = [22, 22]; p <= 100; gap = Math.max(gap - 3, 6), p += gap) {
    const mark = Math.ceil((p * steps) / 100); // p is in hundredths, because 0.57 * 100 is more than 57
    if (mark !== marks.at(-1)) marks.push(mark);
  }
  return marks;
}

export interface ApgdOptions {
  readonly steps: number;
  readonly loss: (trial: AttackTrial) => LossOf;
}

/** Returns APGD: a run starts at a random point and takes `steps` + 1 gradients. */
export const apgd =
  ({ steps, loss: lossOf }: ApgdOptions): Attack =>
  async (trial) => {
    const { asked, centre, ball, random, keep } = trial;
    const loss = lossOf(trial);
    const marks = new Set(checkpoints(steps));
    const at = async (point: Float64Array) => {
      const { value, gradient, judged } = await asked.evaluate(point, loss);
      return { x: point, value, gradient, judged };
    };
    let now = await at(startIn(ball, centre, random));
    if (await keep(now.x, now.value, now.judged)) return;
    let best = now;
    let before = now.x;
    let size = 2 * ball.eps;
    let rises = 0;
    let last = { mark: 0, size, best: best.value };
    for (let k = 0; k < steps; k++) {
      const { x, value, gradient } = now;
      const up = ascent(ball.norm, gradient);
      const stepped = project(
        ball,
        x.map((v, i) => v + size * up[i]!),
        centre,
      );
      const share = k > 0 ? ALPHA : 1;
      const from = before;
      const moved = x.map((v, i) => v + share * (stepped[i]! - v) + (1 - share) * (v - from[i]!));
      before = x;
      now = await at(project(ball, moved, centre));
      if (await keep(now.x, now.value, now.judged)) return;
      if (now.value > value) rises++;
      if (now.value > best.value) best = now;
      if (!marks.has(k + 1)) continue;
      const few = rises < RHO * (k + 1 - last.mark);
      const still = last.size === size && last.best === best.value;
      last = { mark: k + 1, size, best: best.value };
      rises = 0;
      if (few || still) {
        size /= 2;
        now = best;
      }
    }
  };

/** What all entries of APGD have in common. */
const entry = {
  options: {},
  defaults: { steps: 100, restarts: 1 },
  leastClasses: 2,
  usesGradients: true,
} as const;

/** AutoAttack aims at nine classes, one per restart. */
const targeted = { ...entry, defaults: { steps: 100, restarts: 9 } } as const;

export const apgdCeEntry: AttackEntry<OptionValues, 'apgd-ce'> = {
  ...entry,
  name: 'apgd-ce',
  summary: 'APGD on the cross-entropy',
  make: ({ steps }) => apgd({ steps, loss: ({ label }) => crossEntropy(label) }),
};

export const apgdDlrEntry: AttackEntry<OptionValues, 'apgd-dlr'> = {
  ...entry,
  name: 'apgd-dlr',
  summary: 'APGD on the difference of logits ratio',
  leastClasses: 3,
  make: ({ steps }) => apgd({ steps, loss: ({ label }) => dlr(label) }),
};

export const apgdTargetedEntry: AttackEntry<OptionValues, 'apgd-t'> = {
  ...targeted,
  name: 'apgd-t',
  summary: 'targeted APGD on the difference of logits ratio',
  leastClasses: 4,
  make: ({ steps }) =>
    apgd({
      steps,
      loss: ({ label, clean, restart }) => targetedDlr(label, targetOf(clean, label, restart)),
    }),
};

export const apgdCeTargetedEntry: AttackEntry<OptionValues, 'apgd-ce-t'> = {
  ...targeted,
  name: 'apgd-ce-t',
  summary: 'targeted APGD on the cross-entropy',
  make: ({ steps }) =>
    apgd({
      steps,
      loss: ({ label, clean, restart }) => targetedCrossEntropy(targetOf(clean, label, restart)),
    }),
};
