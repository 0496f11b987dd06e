// The exports of `diffclass-stream/attacks`: adversarial attacks on diffusion classifiers, with or without purification.

export {
  type Attack,
  type Attacked,
  type AttackedImage,
  type AttackOptions,
  type AttackTrial,
  attackImage,
} from './pipeline/attacking/attack.ts';
export { ATTACKS, type AttackChoice, type AttackName, attackOf } from './pipeline/attacking/attacks.ts';
export type { Ball } from './pipeline/attacking/ball.ts';
export {
  type AttackPlan,
  attackAndJudge,
  type Campaign,
  type Outcome,
  type Prediction,
} from './pipeline/attacking/campaign.ts';
export type {
  Answer,
  Asked,
  Defended,
  Evaluated,
  Expectation,
  Queries,
} from './pipeline/attacking/defended.ts';
export {
  type ClassifierOptions,
  type DiffusionClassifier,
  diffusionClassifier,
} from './pipeline/attacking/diffusion-classifier.ts';
export type { Loss, LossOf } from './pipeline/attacking/losses.ts';
export {
  GRADIENT_MODES,
  type GradientMode,
  type Purifier,
  purified,
} from './pipeline/attacking/purified-classifier.ts';
export type { Random } from './pipeline/attacking/random.ts';
export { type Share, shareOf } from './pipeline/attacking/wilson.ts';
export type {
  Cotangent,
  Denoising,
  LossGradient,
  PurificationStep,
  State,
} from './pipeline/purifying/chain.ts';
