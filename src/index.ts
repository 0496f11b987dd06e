// The library: what `import { ... } from 'diffclass-stream'` offers, from streams down to kernels.

export { type DenoiserOptions, denoiser } from './graph/denoiser.ts';
export {
  type Description,
  describeModel,
  type EvaluationCost,
  evaluationCost,
  type NetworkDescription,
} from './graph/describe.ts';
export type { Network } from './graph/evaluation.ts';
export { type Converted, type ConvertOptions, convertEdm } from './graph/files/edmpickle.ts';
export { openSafetensors, type TensorFile, type TensorInfo } from './graph/files/safetensors.ts';
export { type TensorData, writeSafetensors } from './graph/files/safetensors-write.ts';
// Models.
export {
  type Candidate,
  type Crop,
  type Differentiable,
  type ErrorGradients,
  type EvaluationBatch,
  type Familiar,
  type Level,
  type Mix,
  type Model,
  NO_CLASS,
  type PredictionBatch,
} from './graph/model.ts';
export { type ModelSummary, readModel } from './graph/modelsummary.ts';
export { type OpenModelOptions, openModel } from './graph/openmodel.ts';
export { type ShippedModel, shippedModels } from './graph/shipped-models.ts';
export {
  importanceLevels,
  normalisedError,
  rdcLevels,
  riemannLevels,
  type SigmaLevel,
  type SigmaStatistics,
  type SigmaWeighting,
  sigmaWeight,
  sigmaWeightings,
  sumTemperature,
} from './graph/sigmas.ts';
// The device.
export type { DriverCall } from './kernels/adapters.ts';
export {
  type Capabilities,
  type CompileProgress,
  type Device,
  type DeviceOptions,
  type DeviceSummary,
  type Family,
  listDevices,
  openDevice,
} from './kernels/device.ts';
export {
  DeviceLostError,
  ModelError,
  NoDeviceError,
  OutOfMemoryError,
  ShapeError,
  UnsupportedError,
} from './kernels/errors.ts';
// Attacks, and robust accuracy.
export { type Attacked, type AttackOptions, attackImage, type Victim } from './pipeline/attacking/attack.ts';
export { ATTACKS, type AttackName, attackOf } from './pipeline/attacking/attacks.ts';
export { attackAndJudge, type Campaign, type Outcome } from './pipeline/attacking/campaign.ts';
export { type DiffusionClassifier, diffusionClassifier } from './pipeline/attacking/classifier.ts';
export type { Defended } from './pipeline/attacking/defended.ts';
export { GRADIENT_MODES, type GradientMode, purified } from './pipeline/attacking/purified.ts';
export { type Share, shareOf } from './pipeline/attacking/wilson.ts';
// Streams of images in, verdicts out.
export { classifyImages } from './pipeline/classify-images.ts';
// How candidates are dropped, and on which noise levels.
export { all } from './pipeline/deciding/all.ts';
export { type Energies, energyOf } from './pipeline/deciding/energy.ts';
export { bitReversed, evenTimesteps, linspace, parseGrid } from './pipeline/deciding/levels.ts';
export {
  lessUnconditional,
  type Matches,
  matchesOf,
  type Score,
  scoreOf,
} from './pipeline/deciding/matching.ts';
export { type SequentialOptions, sequential } from './pipeline/deciding/sequential.ts';
export { type Schedule as StagedSchedule, staged } from './pipeline/deciding/staged.ts';
export type { Strategy, Trial } from './pipeline/deciding/trial.ts';
export { sigmaLevels, weigh, weightings } from './pipeline/deciding/weighting.ts';
export { ItemError, UsageError } from './pipeline/errors.ts';
export type { AbortSignalLike } from './pipeline/host-types.ts';
// Images from anywhere.
export { type Conversions, conversions } from './pipeline/images/conversions.ts';
export { type ImageFromOptions, type ItemOptions, imageFrom } from './pipeline/images/image-from.ts';
export type {
  BlobLike,
  DecodedImage,
  EncodedImage,
  ImageInput,
  ImageSource,
  RawImage,
  ReadyImage,
  SharpLike,
  UrlLike,
  WebStreamLike,
} from './pipeline/images/image-input.ts';
export type { DecodeLimits, ReadLimits } from './pipeline/images/limits.ts';
export { type LoadOptions, loadImages } from './pipeline/images/load.ts';
export type { Pixels } from './pipeline/images/pixels.ts';
export type { PrepareOptions } from './pipeline/images/prepare.ts';
export type { Filter } from './pipeline/images/resample.ts';
export {
  type Found,
  findImages,
  isImage,
  type NamedImage,
  type SourceOptions,
} from './pipeline/images/sources.ts';
export { aggregate } from './pipeline/operators/aggregate.ts';
export { classify } from './pipeline/operators/classify.ts';
export type { ClassifyOptions } from './pipeline/operators/classify-options.ts';
export { eliminate } from './pipeline/operators/eliminate.ts';
export { encode } from './pipeline/operators/encode.ts';
export { errors } from './pipeline/operators/errors.ts';
export { fanOut } from './pipeline/operators/fan-out.ts';
export { purify } from './pipeline/operators/purify.ts';
export { verdict } from './pipeline/operators/verdict.ts';
// How images are purified.
export {
  METHODS as purifyingMethods,
  type Method as PurifyingMethod,
  type PurifyingOptions,
  T_STAR as publishedTStar,
} from './pipeline/purifying/methods.ts';
export { purificationLevels } from './pipeline/purifying/plan.ts';
export { pulled } from './pipeline/stream/observable.ts';
export {
  type Purification,
  type Purified,
  type PurifyOptions,
  purifyImages,
} from './pipeline/stream/purify.ts';
export type {
  Classified,
  EvaluationRecord,
  ImageItem,
  ItemFailure,
  Progress,
  RankedClass,
} from './pipeline/types.ts';
