// Projected gradient ascent with a fixed step (Madry et al., ICLR 2018).

import { radius } from '../option-schemas.ts';
import { type Attack, type AttackTrial, startIn } from './attack.ts';
import type { AttackEntry } from './attack-entry.ts';
import { ascent, project } from './ball.ts';
import { crossEntropy } from './losses.ts';

export interface PgdOptions {
  readonly steps: number;
  /** In [0, 1] pixel units; default 2.5 eps / steps, which reaches any point of the ball. */
  readonly stepSize?: number | undefined;
}

/** Returns PGD on the cross-entropy: a run starts at a random point of the ball and takes `steps` + 1 gradients. */
export const pgd =
  ({ steps, stepSize }: PgdOptions): Attack =>
  async ({ asked, centre, label, ball, random, keep }: AttackTrial) => {
    const size = stepSize ?? (2.5 * ball.eps) / steps;
    const loss = crossEntropy(label);
    let x = startIn(ball, centre, random);
    for (let k = 0; ; k++) {
      const { value, gradient, judged } = await asked.evaluate(x, loss);
      if ((await keep(x, value, judged)) || k === steps) return;
      const up = ascent(ball.norm, gradient);
      x = project(
        ball,
        x.map((v, i) => v + size * up[i]!),
        centre,
      );
    }
  };

export const pgdEntry: AttackEntry<Pick<PgdOptions, 'stepSize'>, 'pgd'> = {
  name: 'pgd',
  summary: 'steps of one size along the gradient of the cross-entropy',
  options: {
    stepSize: {
      ...radius,
      flags: '--step-size <size>',
      help: 'pgd: size of a step, for pixels in [0, 1] (2.5 eps / steps)',
    },
  },
  defaults: { steps: 100, restarts: 1 },
  leastClasses: 2,
  usesGradients: true,
  make: pgd,
};
