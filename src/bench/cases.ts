// The cases of the kernel benchmark: for each op the shapes of the shipped networks, and some of larger ones.

import type { OpName } from '../graph/ops/table.ts';
import type { Shape } from '../kernels/device/tensor.ts';
import { BUILDERS } from './builders.ts';
import type { BenchCase } from './case.ts';
import type { CaseOptions } from './case-options.ts';

/** The shape of a case [c, n, h, w], and its options. */
export type Size = readonly [shape: Shape, options?: CaseOptions];

const ALL: CaseOptions = { affine: 'silu', embedding: true, residual: true, scale: 0.7 };
const ONE: CaseOptions = { kernel: [1, 1] };

/** Returns the dense layers of the shipped network for `n` evaluations. */
const denseLayers = (n: number): Size[] => [
  [[64, n, 1, 1], { activation: 'silu' }],
  [[64, n, 1, 1], { channels: 128 }],
  [[48, n, 28, 28], { channels: 16 }],
  [[16, n, 14, 14], { channels: 32 }],
  [[96, n, 14, 14], { channels: 32 }],
  [[128, n, 7, 7], { channels: 64 }],
  [[64, n, 7, 7], { channels: 192, bias: false }],
  [[64, n, 7, 7], { residual: true }],
  [[96, n, 7, 7], { channels: 288 }],
];

/** Returns the convolutions of the shipped network for `n` evaluations. */
const convolutions = (n: number): Size[] => [
  [[1, n, 28, 28], { channels: 16 }],
  [[16, n, 28, 28], { affine: 'silu', embedding: true }],
  [[16, n, 28, 28], { affine: 'silu', residual: true }],
  [[32, n, 28, 28], { channels: 16, affine: 'silu' }],
  [[48, n, 28, 28], { channels: 16, affine: 'silu' }],
  [[16, n, 28, 28], { channels: 1, affine: 'silu' }],
  [[32, n, 14, 14], { upsample: 2 }],
  [[16, n, 14, 14], { channels: 32, affine: 'silu' }],
  [[32, n, 14, 14], { affine: 'silu', residual: true }],
  [[48, n, 14, 14], { channels: 32, affine: 'silu' }],
  [[96, n, 14, 14], { channels: 32, affine: 'silu' }],
  [[64, n, 7, 7], { upsample: 2 }],
  [[96, n, 7, 7], { upsample: 2 }],
  [[32, n, 7, 7], { channels: 64, affine: 'silu' }],
  [[64, n, 7, 7], { affine: 'silu', residual: true }],
  [[96, n, 7, 7], { channels: 64, affine: 'silu' }],
  [[128, n, 7, 7], { channels: 64, affine: 'silu' }],
  [[96, n, 7, 7], { affine: 'silu', residual: true }],
  [[192, n, 7, 7], { channels: 96, affine: 'silu' }],
  [[16, n, 28, 28], { stride: 2 }],
  [[32, n, 14, 14], { stride: 2 }],
  [[48, n, 28, 28], { channels: 16, ...ONE }],
];

/** Convolutions whose gradients are timed. */
export const BACKWARD: readonly Size[] = [
  [[128, 8, 32, 32]],
  [[256, 8, 16, 16]],
  [[16, 64, 28, 28]],
  [[32, 64, 14, 14]],
  [[96, 64, 7, 7]],
  [[1, 64, 28, 28], { channels: 16 }],
  [[16, 64, 28, 28], { channels: 1 }],
  [[16, 64, 28, 28], { stride: 2 }],
  [[32, 64, 14, 14], { stride: 2 }],
  [[128, 8, 32, 32], { stride: 2 }],
  [[48, 64, 28, 28], { channels: 16, ...ONE }],
];

const ATTENTIONS: readonly Size[] = [
  [[64, 64, 1, 49], { heads: 4 }],
  [[96, 64, 1, 49], { heads: 6 }],
  [[64, 256, 1, 49], { heads: 4 }],
  [[96, 256, 1, 49], { heads: 6 }],
  [[256, 8, 1, 256], { heads: 4 }],
  [[512, 8, 1, 256], { heads: 8 }],
  [[320, 2, 1, 1024], { heads: 8, keys: 77 }],
  [[320, 1, 1, 1024], { heads: 8 }],
  [[768, 8, 1, 77], { heads: 12 }],
  [[768, 8, 1, 77], { heads: 12, causal: true }],
];

const GROUP_NORMS: readonly Size[] = [
  [[16, 128, 28, 28], { groups: 8, embedding: true }],
  [[48, 128, 28, 28], { groups: 8 }],
  [[32, 128, 14, 14], { groups: 8, embedding: true }],
  [[64, 128, 7, 7], { groups: 8, embedding: true }],
  [[96, 128, 7, 7], { groups: 8 }],
  [[128, 8, 32, 32], { groups: 32 }],
];

/** Activations of the shipped network for a batch of 128. */
const ACTIVATIONS: readonly Size[] = [[[16, 128, 28, 28]], [[32, 128, 14, 14]], [[64, 128, 7, 7]]];
/** Tokens of a DiT-XL/2 and of a text encoder. */
const TOKENS: readonly Size[] = [[[1152, 2, 1, 256]], [[768, 8, 1, 77]]];
/** Images of the shipped networks, for a batch of 128. */
const IMAGES: readonly Size[] = [[[1, 128, 28, 28]], [[3, 128, 32, 32]]];
/** Embeddings of a batch of 128. */
const EMBEDDINGS: readonly Size[] = [[[64, 128, 1, 1]]];
/** Products of samples with the images of a training set. */
const TRAINING_SET: readonly Size[] = [[[1000, 128, 1, 1]]];

/** The sizes at which each op is timed. */
const SIZES: Readonly<Record<OpName, readonly Size[]>> = {
  linear: [
    ...denseLayers(64),
    ...denseLayers(256),
    [[512, 1, 1, 512], { bias: false }],
    [[512, 1, 1, 512], { bias: false, weights: 'f16' }],
    [[1024, 1, 32, 32], { bias: false }],
    [[128, 8, 32, 32]],
    [[320, 2, 64, 64]],
  ],
  attention: ATTENTIONS,
  attentionGradient: ATTENTIONS,
  conv2d: [
    ...convolutions(64),
    ...convolutions(128),
    [[128, 8, 32, 32]],
    [[256, 8, 16, 16]],
    [[128, 8, 32, 32], ALL],
    [[256, 8, 16, 16], { upsample: 2 }],
  ],
  inputGradient: [[[128, 8, 32, 32]], [[32, 64, 14, 14]], [[16, 64, 28, 28]]],
  weightGradient: BACKWARD,
  groupNorm: GROUP_NORMS,
  groupNormGradient: GROUP_NORMS,
  groupNormAffine: GROUP_NORMS,
  groupNormSums: GROUP_NORMS,
  layerNorm: TOKENS,
  layerNormGradient: TOKENS,
  normScaleGradient: EMBEDDINGS,
  activation: ACTIVATIONS,
  activationGradient: ACTIVATIONS,
  add: ACTIVATIONS,
  geglu: TOKENS,
  gatedAdd: TOKENS,
  multiply: ACTIVATIONS,
  addRows: ACTIVATIONS,
  scaleRows: ACTIVATIONS,
  scaled: ACTIVATIONS,
  addImage: TOKENS,
  concat: ACTIVATIONS,
  slice: ACTIVATIONS,
  padChannels: ACTIVATIONS,
  depthToSpace: ACTIVATIONS,
  spaceToDepth: [[[16, 128, 28, 28]], [[32, 128, 14, 14]]],
  upsample: [[[32, 128, 14, 14]], [[64, 128, 7, 7]]],
  upsampleGradient: [[[32, 128, 14, 14]], [[64, 128, 7, 7]]],
  averagePool: [[[16, 128, 28, 28]], [[32, 128, 14, 14]]],
  averagePoolGradient: [[[32, 128, 14, 14]], [[64, 128, 7, 7]]],
  pad: ACTIVATIONS,
  gather: EMBEDDINGS,
  gatherGradient: EMBEDDINGS,
  pickSamples: ACTIVATIONS,
  sumPicked: ACTIVATIONS,
  sumSamples: ACTIVATIONS,
  pickHead: IMAGES,
  pickHeadBackward: IMAGES,
  flatten: IMAGES,
  unflatten: IMAGES,
  posterior: TRAINING_SET,
  posteriorGradient: TRAINING_SET,
  mix: IMAGES,
  slotsGradient: IMAGES,
  scaleByLevel: IMAGES,
  errors: IMAGES,
  errorsGradient: IMAGES,
  sumPixels: ACTIVATIONS,
  sumColumns: ACTIVATIONS,
};

/** The names of the ops that have cases, in the order of the benchmark. */
export const OP_NAMES = Object.keys(SIZES) as readonly OpName[];

/** Returns the case of an op at a size. @throws ShapeError if the op does not accept it. */
export const benchCase = (op: OpName, shape: Shape, options: CaseOptions = {}): BenchCase =>
  BUILDERS[op].build(shape, options);

/** Returns all cases of the kernel benchmark, op by op. */
export const benchCases = (): readonly BenchCase[] =>
  OP_NAMES.flatMap((op) => SIZES[op].map(([shape, options]) => benchCase(op, shape, options)));
