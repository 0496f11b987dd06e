// The attacks by name.

import { apgd } from './apgd.ts';
import type { Attack } from './attack.ts';
import { argmax, crossEntropy, dlr, targetedCrossEntropy, targetedDlr, wantClasses } from './losses.ts';
import { pgd } from './pgd.ts';
import { square } from './square.ts';

/** Names of attacks: `-t` are targeted, another class in every restart, the most likely ones first. */
export const ATTACKS = ['pgd', 'apgd-ce', 'apgd-dlr', 'apgd-t', 'apgd-ce-t', 'square'] as const;

/** One of `ATTACKS`. */
export type AttackName = (typeof ATTACKS)[number];

/** Steps and restarts where nobody says any: AutoAttack's. */
export const DEFAULTS: Readonly<Record<AttackName, { readonly steps: number; readonly restarts: number }>> = {
  pgd: { steps: 100, restarts: 1 },
  'apgd-ce': { steps: 100, restarts: 1 },
  'apgd-dlr': { steps: 100, restarts: 1 },
  'apgd-t': { steps: 100, restarts: 9 },
  'apgd-ce-t': { steps: 100, restarts: 9 },
  square: { steps: 5000, restarts: 1 },
};

/** The class that restart `restart` of a targeted attack aims at: the wrong ones by falling logit, over and over. */
export function targetOf(clean: Float64Array, label: number, restart: number): number {
  const without = [label];
  for (let i = restart % (clean.length - 1); i > 0; i--) without.push(argmax(clean, ...without));
  return argmax(clean, ...without);
}

export interface AttackChoice {
  /** Steps of a run; queries for `square`. */
  readonly steps: number;
  /** `pgd`: see `PgdOptions`. */
  readonly stepSize?: number | undefined;
}

/**
 * An attack by name, for a classifier of so many classes.
 *
 * @throws UsageError where its loss compares more classes than there are.
 */
export function attackOf(name: AttackName, { steps, stepSize }: AttackChoice, classes: number): Attack {
  wantClasses(name, name === 'apgd-t' ? 4 : name === 'apgd-dlr' ? 3 : 2, classes);
  switch (name) {
    case 'pgd':
      return pgd({ steps, stepSize });
    case 'apgd-ce':
      return apgd({ steps, loss: ({ label }) => crossEntropy(label) });
    case 'apgd-dlr':
      return apgd({ steps, loss: ({ label }) => dlr(label) });
    case 'apgd-t':
      return apgd({
        steps,
        loss: ({ label, clean, restart }) => targetedDlr(label, targetOf(clean, label, restart)),
      });
    case 'apgd-ce-t':
      return apgd({
        steps,
        loss: ({ label, clean, restart }) => targetedCrossEntropy(targetOf(clean, label, restart)),
      });
    case 'square':
      return square({ queries: steps });
    default:
      return name satisfies never;
  }
}
