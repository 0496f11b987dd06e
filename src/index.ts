// The exports of `diffclass-stream`. RxJS operators are in `/operators`, attacks in `/attacks`, kernels in `/kernels`.

export {
  DeviceLostError,
  ItemError,
  ModelError,
  NoDeviceError,
  OutOfMemoryError,
  ShapeError,
  UnsupportedError,
  UsageError,
} from './errors.ts';
export type { MeasuredPrediction, Prediction } from './graph/checkpoints/prediction.ts';
export type { Files, OpenFile } from './graph/files/files.ts';
export type { TensorFile, TensorInfo } from './graph/files/safetensors.ts';
export type { StoredBytes, TensorData } from './graph/files/tensor-data.ts';
export type { EdmArguments } from './graph/folders/edm-pickle.ts';
export type { PredictionType } from './graph/folders/schedule.ts';
// Models.
export {
  type Candidate,
  type Crop,
  type Differentiable,
  type ErrorGradients,
  type EvaluationBatch,
  type Familiar,
  type ImageGeometry,
  type Level,
  type Mix,
  type Model,
  NO_CLASS,
  type NoisePairing,
  type PredictionBatch,
  type Views,
  type WeightedCandidates,
} from './graph/model.ts';
export type { ModelSummary } from './graph/model-summary.ts';
export type { Description, EvaluationCost, NetworkDescription } from './graph/models/describe.ts';
export type { Embedding, Lora, OpenModelOptions } from './graph/models/open-model.ts';
export { type Converted, type ConvertOptions, convertEdm } from './graph/node/convert-edm.ts';
export { describeModel, evaluationCost, openModel, readModel } from './graph/node/open-model.ts';
export { openSafetensors } from './graph/node/open-safetensors.ts';
export { type ShippedModel, shippedModels } from './graph/node/shipped-models.ts';
export { writeSafetensors } from './graph/node/write-safetensors.ts';
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
export { bitReversed } from './graph/visiting.ts';
export type { AbortSignalLike } from './host-types.ts';
// The device.
export type { DriverCall } from './kernels/device/adapters.ts';
export {
  type Capabilities,
  type CompileProgress,
  type Device,
  type DeviceOptions,
  type DeviceSummary,
  type Family,
  listDevices,
  openDevice,
} from './kernels/device/device.ts';
export type { MatrixUnit } from './kernels/device/matrix-units.ts';
export type { Elements, WeightDtype } from './kernels/device/routine.ts';
export type { Tiles } from './kernels/device/shape-class.ts';
export type { TuneProgress } from './kernels/device/tuned-device.ts';
export type { Distance, Residual } from './kernels/diffusion/error-reduction.ts';
// The opened classifier, and streams of images through it.
export type { Classifier } from './pipeline/classifying/classifier.ts';
export { classifyImages } from './pipeline/classifying/classify-images.ts';
// How candidates are dropped, and on which noise levels.
export { all } from './pipeline/deciding/all.ts';
export { type Energies, energyOf } from './pipeline/deciding/energy.ts';
export {
  evenTimesteps,
  type Grid,
  type ImportanceGrid,
  linspace,
  parseGrid,
  type SigmaGrid,
} from './pipeline/deciding/levels.ts';
export {
  lessUnconditional,
  type Matches,
  matchesOf,
  type Score,
  scoreOf,
} from './pipeline/deciding/matching.ts';
export { type SequentialOptions, sequential } from './pipeline/deciding/sequential.ts';
export { type StagedSchedule, staged } from './pipeline/deciding/staged.ts';
export type { ModelInfo as Facts, Round as Look, Strategy, Trial } from './pipeline/deciding/trial.ts';
export type { ResultOptions } from './pipeline/deciding/verdict.ts';
export { sigmaLevels, type WeightingOptions, weigh, weightings } from './pipeline/deciding/weighting.ts';
// Images from anywhere.
export { type Conversions, conversions, type ImageSummary } from './pipeline/images/conversions.ts';
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
export type { Pixels } from './pipeline/images/pixels.ts';
export type { PrepareOptions } from './pipeline/images/prepare.ts';
export type { Filter } from './pipeline/images/resize.ts';
export { type ImageFromOptions, type ItemOptions, imageFrom } from './pipeline/node/image-from.ts';
export { type LoadOptions, loadImages } from './pipeline/node/load.ts';
export { type OpenClassifierOptions, openClassifier } from './pipeline/node/open-classifier.ts';
export {
  type Found,
  findImages,
  isImage,
  type NamedImage,
  type SourceOptions,
} from './pipeline/node/sources.ts';
export type { ClassifyOptions } from './pipeline/operators/classify-options.ts';
// How images are purified.
export { T_STAR as publishedTStar } from './pipeline/purifying/diffpure.ts';
export {
  METHODS as purifyingMethods,
  type Method as PurifyingMethod,
  type PurifyingOptions,
  purificationLevels,
} from './pipeline/purifying/methods.ts';
export type { OpenModel } from './pipeline/stream/batcher.ts';
export {
  type Purification,
  type Purified,
  type PurifyOptions,
  purifyImages,
} from './pipeline/stream/purify-images.ts';
export type { ClassifierInfo } from './pipeline/stream/sharing.ts';
export type {
  Classified,
  EvaluationRecord,
  ImageItem,
  ItemFailure,
  Progress,
  RankedClass,
} from './pipeline/types.ts';
