// The dry run of `attack` and `evaluate`: how many queries attacks may take, and how long queries take.

import { product } from '../../../numbers.ts';
import { ATTACK_ENTRIES, type AttackName } from '../../attacking/attacks.ts';
import type { AttackPlan, Campaign } from '../../attacking/campaign.ts';
import { entryOf } from '../../option.ts';
import type { Values } from '../options/table.ts';
import { openCampaign, planOf, type RobustSettings } from './attack-campaign.ts';
import { writeForecast } from './forecast.ts';
import { short } from './progress.ts';
import type { Run, RunOutcome } from './run-command.ts';
import type { Surroundings } from './subcommand.ts';
import { runTimeOf, secondsOf, sumOf, timeWork } from './timing.ts';

/** Queries of an image: calls of the judge, and of the attacked classifier for logits and for gradients. */
export interface QueryCounts {
  readonly judge: number;
  readonly logits: number;
  readonly gradients: number;
}

/**
 * Counts the most queries that attacks can make for an image that none of them breaks. Every draw counts as one query. If
 * the attacked classifier is not the judge, the judge may be asked after each step.
 */
export function mostQueries(plans: readonly AttackPlan[], { attacked, judge, eot }: Campaign): QueryCounts {
  let [judged, logits, gradients] = [1, 0, 0];
  const verified = attacked === judge && attacked.period === 1 ? 0 : 1;
  for (const { attack, steps, restarts } of plans) {
    const { usesGradients } = entryOf(ATTACK_ENTRIES, attack);
    const points = restarts * (usesGradients ? steps + 1 : steps);
    logits += eot * (usesGradients ? 1 : 1 + points);
    gradients += usesGradients ? eot * points : 0;
    judged += 2 + verified * (1 + points);
  }
  return { judge: judged, logits, gradients };
}

/**
 * Says how long attacks will take: times queries as the attacks make them, several images at once, and counts how many
 * there may be; `least` is the least number of queries of an image.
 */
export async function forecastRobust(
  settings: RobustSettings & Values<'reportFormat'>,
  attacks: readonly AttackName[],
  images: number,
  least: QueryCounts,
  { openModel, stdout }: Surroundings,
  run: Run,
): Promise<RunOutcome> {
  const { model, campaign, concurrency, close } = await openCampaign(settings, openModel, attacks);
  run.atEnd(close);
  const opening = process.uptime();
  const { attacked, judge, eot } = campaign;
  const plans = attacks.map((attack) => planOf(attack, settings));
  const most = mostQueries(plans, campaign);
  const grey = new Float64Array(product(attacked.shape)).fill(0.5);
  const fill = Math.max(1, Math.min(images, concurrency));
  const timeOf = (query: () => Promise<unknown>) =>
    timeWork({ run: (count) => Promise.all(Array.from({ length: count }, query)), fill });
  const judging = await timeOf(() => judge.logits(grey, 0));
  const asking = attacked === judge ? judging : await timeOf(() => attacked.logits(grey, 0));
  // The gradient costs most if every class contributes to the loss.
  const deriving =
    most.gradients > 0 ? await timeOf(() => attacked.gradient!(grey, 0, (z) => z.map(() => 1))) : undefined;
  const amount = (of: keyof QueryCounts) => ({ least: least[of], typical: null, most: most[of] });
  const image = sumOf([
    secondsOf(judging, amount('judge')),
    secondsOf(asking, amount('logits')),
    ...(deriving ? [secondsOf(deriving, amount('gradients'))] : []),
  ]);
  const once = opening + judging.once + (asking === judging ? 0 : asking.once) + (deriving?.once ?? 0);
  const draws = eot > 1 ? `, ${eot} draws each` : '';
  const forecast = {
    model: model.name,
    images,
    work: {
      text:
        `per image at most ${short(most.judge + most.logits)} queries for logits and ${short(most.gradients)} for gradients${draws}; ` +
        `at least ${short(least.judge + least.logits)}, for an image that is wrong as it is, or broken at once`,
      data: { queries: { least, most } },
    },
    timed:
      `${short(1000 * judging.mean)} ms for logits` +
      (deriving ? `, ${short(1000 * deriving.mean)} ms for a gradient` : '') +
      `, with ${fill} images at once`,
    time: runTimeOf(images, image, once),
  };
  return writeForecast(stdout, forecast, settings.reportFormat);
}
