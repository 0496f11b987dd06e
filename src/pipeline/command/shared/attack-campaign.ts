// What `attack` and `evaluate` have in common: the options, and the classifiers they make of them.

import { UsageError } from '../../../errors.ts';
import { ATTACK_ENTRIES, type AttackName } from '../../attacking/attacks.ts';
import type { AttackPlan, Campaign } from '../../attacking/campaign.ts';
import { classifierBy } from '../../attacking/diffusion-classifier.ts';
import { type GradientMode, purified } from '../../attacking/purified-classifier.ts';
import { checkOwners, entryOf, namesOf, type OptionValues, optionsOf } from '../../option.ts';
import type { OpenModel } from '../../stream/batcher.ts';
import { acquire } from '../../stream/sharing.ts';
import { type OptionName, readOptionSet, type Values } from '../options/table.ts';
import { candidatesFor } from './candidates.ts';
import { evaluationOptions, type OpenFolder } from './model-choice.ts';
import { modelFolder } from './model-folder.ts';
import { openPurifier } from './opened-model.ts';
import { checkGrid } from './option-checks.ts';
import { CLASSIFY_PURIFYING, purifyingOf } from './purify-settings.ts';

/** The options that single attacks have. */
export const ATTACK_OPTIONS = optionsOf(ATTACK_ENTRIES);

/** Options of both commands, in the order of their help. */
export const ROBUST = [
  'model',
  'labels',
  'imageSize',
  'timesteps',
  'sigmas',
  'loss',
  'weighting',
  'noise',
  'norm',
  'eps',
  'attackSteps',
  'restarts',
  'eot',
  'randomness',
  'levelsPerStep',
  'gradient',
  ...CLASSIFY_PURIFYING,
  'seed',
  'batch',
  'concurrency',
] as const satisfies readonly OptionName[];

/** Checked options of both commands. */
export type RobustSettings = Values<(typeof ROBUST)[number]> & ReturnType<typeof checkRobust>;

/**
 * Checks that the options fit together and fit the attacks. Returns what is read from them: the values of the options that
 * single attacks have, --eps as it was typed (such as 8/255), the purification and the mode of its gradient.
 *
 * @throws UsageError, one sentence.
 */
export function checkRobust(
  values: Values<(typeof ROBUST)[number]>,
  attacks: readonly AttackName[],
  typed: OptionValues,
) {
  const epsText = typed.eps === undefined ? undefined : String(typed.eps);
  const { eps, norm = 'linf', eot, noise, gradient, attackSteps, purify } = values;
  const refuse = (message: string): never => {
    throw new UsageError(message);
  };
  checkGrid(values);
  if (attacks.length > 0 && eps === undefined)
    refuse(
      '--eps is missing; give the largest change of an image, for pixels in [0, 1], such as --eps 8/255',
    );
  if (eps !== undefined && norm === 'linf' && eps > 1)
    refuse(`--eps: expected a linf radius of at most 1, for pixels in [0, 1], such as 8/255; got ${epsText}`);
  const attackValues = readOptionSet(ATTACK_OPTIONS, typed);
  const chosen = attacks.map((attack) => entryOf(ATTACK_ENTRIES, attack));
  checkOwners(ATTACK_ENTRIES, chosen, attackValues, 'the attack ');
  for (const { name, leastSharedSteps = 0 } of chosen)
    if (attackSteps !== undefined && attacks.length > 1 && attackSteps < leastSharedSteps)
      refuse(
        `--steps: ${name} needs ${leastSharedSteps} steps or more, got ${attackSteps} for all attacks; run ${name} by itself`,
      );
  if (noise !== undefined && (eot > 1 || values.randomness === 'fresh'))
    refuse('--noise holds the noise of one draw; --eot and --randomness fresh need --seed instead');
  if (gradient !== undefined && purify === undefined) refuse('--gradient needs --purify METHOD');
  const gradientMode: GradientMode = gradient ?? 'identity';
  return { attackValues, epsText, purifying: purifyingOf(values, typed), gradientMode };
}

/** Returns an attack with the settings given, or else its defaults. */
export function planOf(
  attack: AttackName,
  { attackSteps, restarts, attackValues }: Pick<RobustSettings, 'attackSteps' | 'restarts' | 'attackValues'>,
): AttackPlan {
  const { defaults, options } = entryOf(ATTACK_ENTRIES, attack);
  const own = Object.keys(options).map((name) => [name, attackValues[name]]);
  return {
    attack,
    steps: attackSteps ?? defaults.steps,
    restarts: restarts ?? defaults.restarts,
    ...Object.fromEntries(own),
  };
}

/** Opened classifiers of a run. */
export type Opened = Awaited<ReturnType<typeof openCampaign>>;

/** Images under attack at the same time by default. Together they fill the batches that a single one leaves half empty. */
const CONCURRENCY = 4;

/**
 * Opens the model and the network of the purification. Makes the classifier that is attacked and the one that judges.
 *
 * @throws UsageError if an attack needs gradients and the model has none; and what opening the model throws.
 */
export async function openCampaign(
  settings: RobustSettings,
  openModel: OpenFolder,
  attacks: readonly AttackName[],
) {
  const { labels, purifying, gradientMode, levelsPerStep, seed, norm = 'linf', eps = 0 } = settings;
  const { eot, randomness } = settings;
  const folder = await modelFolder(settings.model);
  const options = {
    ...(await evaluationOptions(settings)),
    candidates: (summary: Parameters<typeof candidatesFor>[0]) => candidatesFor(summary, { labels }),
  };
  const open: OpenModel = (request) => openModel(folder, { ...options, ...request });
  const { batcher, release } = await acquire(open);
  const { model } = batcher;
  let purifier: Awaited<ReturnType<typeof openPurifier>> | undefined;
  const close = () => {
    purifier?.close();
    release();
  };
  try {
    if (!model.differentiable && attacks.some((attack) => entryOf(ATTACK_ENTRIES, attack).usesGradients)) {
      const others = ATTACK_ENTRIES.filter(({ usesGradients }) => !usesGradients);
      throw new UsageError(
        `${model.name} has no gradients with respect to pixels; use the attack ${namesOf(others)}, which needs none`,
      );
    }
    const whole = classifierBy(batcher);
    const seen =
      levelsPerStep === undefined ? whole : classifierBy(batcher, { levelsPerDraw: levelsPerStep });
    purifier = purifying && (await openPurifier(purifying, settings, folder, openModel));
    const transfer = purifier !== undefined && gradientMode === 'transfer';
    const mode = gradientMode === 'full' ? 'full' : 'identity';
    const judge = purifier ? purified(whole, purifier, mode) : whole;
    const defended = seen === whole ? judge : purifier ? purified(seen, purifier, mode) : seen;
    const attacked = transfer ? seen : defended;
    const campaign: Campaign = { attacked, judge, transfer, seed, norm, eps, eot, randomness };
    return {
      model,
      campaign,
      labels: whole.labels,
      /** Images whose attacks together keep the batches full. */
      concurrency: Math.min(settings.concurrency ?? CONCURRENCY, model.slots),
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}
