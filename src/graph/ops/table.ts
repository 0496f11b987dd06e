// The one table of ops.

import type { Capabilities } from '../../kernels/device.ts';
import type { Routine, WeightDtype } from '../../kernels/routine.ts';
import type { Node } from '../graph.ts';
import {
  type AttentionAttributes,
  type AttentionGradientAttributes,
  attentionGradientOp,
  attentionOp,
} from './attention.ts';
import {
  type ConcatAttributes,
  concatOp,
  type DepthToSpaceAttributes,
  depthToSpaceOp,
  type PadChannelsAttributes,
  padChannelsOp,
  type SliceAttributes,
  sliceOp,
  spaceToDepthOp,
} from './channels.ts';
import {
  type Conv2dAttributes,
  conv2dOp,
  type WeightGradientAttributes,
  weightGradientOp,
} from './conv2d.ts';
import {
  type ErrorsAttributes,
  type ErrorsGradientAttributes,
  errorsGradientOp,
  errorsOp,
  type MixAttributes,
  mixOp,
  type ScaleByLevelAttributes,
  type SlotsGradientAttributes,
  scaleByLevelOp,
  slotsGradientOp,
} from './denoising.ts';
import {
  type ActivationAttributes,
  type AddAttributes,
  type AddImageAttributes,
  type AddRowsAttributes,
  activationGradientOp,
  activationOp,
  addImageOp,
  addOp,
  addRowsOp,
  type GatedAddAttributes,
  type GegluAttributes,
  gatedAddOp,
  gegluOp,
  type MultiplyAttributes,
  multiplyOp,
  type ScaledAttributes,
  type ScaleRowsAttributes,
  scaledOp,
  scaleRowsOp,
} from './elementwise.ts';
import {
  type PickHeadAttributes,
  type PickHeadBackwardAttributes,
  pickHeadBackwardOp,
  pickHeadOp,
} from './heads.ts';
import { type LinearAttributes, linearOp } from './linear.ts';
import {
  type GroupNormAffineAttributes,
  type GroupNormAttributes,
  groupNormAffineOp,
  groupNormGradientOp,
  groupNormOp,
  groupNormSumsOp,
  type LayerNormAttributes,
  layerNormGradientOp,
  layerNormOp,
  type NormScaleGradientAttributes,
  normScaleGradientOp,
} from './norms.ts';
import type { NodeShapes, Op } from './op.ts';
import {
  type FlattenAttributes,
  flattenOp,
  type PosteriorAttributes,
  posteriorGradientOp,
  posteriorOp,
  type UnflattenAttributes,
  unflattenOp,
} from './posterior.ts';
import {
  type AveragePoolAttributes,
  type AveragePoolGradientAttributes,
  averagePoolGradientOp,
  averagePoolOp,
  type PadAttributes,
  padOp,
  type UpsampleAttributes,
  type UpsampleGradientAttributes,
  upsampleGradientOp,
  upsampleOp,
} from './resample.ts';
import {
  type GatherAttributes,
  gatherGradientOp,
  gatherOp,
  type PickSamplesAttributes,
  pickSamplesOp,
  type SumPickedAttributes,
  type SumSamplesAttributes,
  sumPickedOp,
  sumSamplesOp,
} from './samples.ts';
import { type SumColumnsAttributes, type SumPixelsAttributes, sumColumnsOp, sumPixelsOp } from './sums.ts';

export interface OpAttributes {
  readonly conv2d: Conv2dAttributes;
  readonly linear: LinearAttributes;
  readonly groupNorm: GroupNormAttributes;
  readonly groupNormAffine: GroupNormAffineAttributes;
  readonly groupNormGradient: GroupNormAttributes;
  readonly groupNormSums: GroupNormAttributes;
  readonly layerNorm: LayerNormAttributes;
  readonly layerNormGradient: LayerNormAttributes;
  readonly normScaleGradient: NormScaleGradientAttributes;
  readonly attention: AttentionAttributes;
  readonly attentionGradient: AttentionGradientAttributes;
  readonly activation: ActivationAttributes;
  readonly activationGradient: ActivationAttributes;
  readonly geglu: GegluAttributes;
  readonly add: AddAttributes;
  readonly addRows: AddRowsAttributes;
  readonly gatedAdd: GatedAddAttributes;
  readonly addImage: AddImageAttributes;
  readonly multiply: MultiplyAttributes;
  readonly scaled: ScaledAttributes;
  readonly scaleRows: ScaleRowsAttributes;
  readonly concat: ConcatAttributes;
  readonly slice: SliceAttributes;
  readonly depthToSpace: DepthToSpaceAttributes;
  readonly upsample: UpsampleAttributes;
  readonly averagePool: AveragePoolAttributes;
  readonly gather: GatherAttributes;
  readonly gatherGradient: GatherAttributes;
  readonly pickSamples: PickSamplesAttributes;
  readonly sumPicked: SumPickedAttributes;
  readonly sumSamples: SumSamplesAttributes;
  readonly pickHead: PickHeadAttributes;
  readonly pickHeadBackward: PickHeadBackwardAttributes;
  readonly flatten: FlattenAttributes;
  readonly unflatten: UnflattenAttributes;
  readonly posterior: PosteriorAttributes;
  readonly posteriorGradient: PosteriorAttributes;
  readonly mix: MixAttributes;
  readonly slotsGradient: SlotsGradientAttributes;
  readonly scaleByLevel: ScaleByLevelAttributes;
  readonly errors: ErrorsAttributes;
  readonly errorsGradient: ErrorsGradientAttributes;
  readonly weightGradient: WeightGradientAttributes;
  readonly padChannels: PadChannelsAttributes;
  readonly spaceToDepth: DepthToSpaceAttributes;
  readonly pad: PadAttributes;
  readonly upsampleGradient: UpsampleGradientAttributes;
  readonly averagePoolGradient: AveragePoolGradientAttributes;
  readonly sumPixels: SumPixelsAttributes;
  readonly sumColumns: SumColumnsAttributes;
}

export type OpName = keyof OpAttributes;

export const ops: { readonly [Name in OpName]: Op<OpAttributes[Name]> } = {
  conv2d: conv2dOp,
  linear: linearOp,
  groupNorm: groupNormOp,
  groupNormAffine: groupNormAffineOp,
  groupNormGradient: groupNormGradientOp,
  groupNormSums: groupNormSumsOp,
  layerNorm: layerNormOp,
  layerNormGradient: layerNormGradientOp,
  normScaleGradient: normScaleGradientOp,
  attention: attentionOp,
  attentionGradient: attentionGradientOp,
  activation: activationOp,
  activationGradient: activationGradientOp,
  geglu: gegluOp,
  add: addOp,
  addRows: addRowsOp,
  gatedAdd: gatedAddOp,
  addImage: addImageOp,
  multiply: multiplyOp,
  scaled: scaledOp,
  scaleRows: scaleRowsOp,
  concat: concatOp,
  slice: sliceOp,
  depthToSpace: depthToSpaceOp,
  upsample: upsampleOp,
  averagePool: averagePoolOp,
  gather: gatherOp,
  gatherGradient: gatherGradientOp,
  pickSamples: pickSamplesOp,
  sumPicked: sumPickedOp,
  sumSamples: sumSamplesOp,
  pickHead: pickHeadOp,
  pickHeadBackward: pickHeadBackwardOp,
  flatten: flattenOp,
  unflatten: unflattenOp,
  posterior: posteriorOp,
  posteriorGradient: posteriorGradientOp,
  mix: mixOp,
  slotsGradient: slotsGradientOp,
  scaleByLevel: scaleByLevelOp,
  errors: errorsOp,
  errorsGradient: errorsGradientOp,
  weightGradient: weightGradientOp,
  padChannels: padChannelsOp,
  spaceToDepth: spaceToDepthOp,
  pad: padOp,
  upsampleGradient: upsampleGradientOp,
  averagePoolGradient: averagePoolGradientOp,
  sumPixels: sumPixelsOp,
  sumColumns: sumColumnsOp,
};

/** The routine of a node on a device; `compact` as in `Conv2dOptions`. */
export function forward(
  node: Node,
  capabilities: Capabilities,
  weights: WeightDtype,
  compact = false,
): Routine {
  const inputs = Object.fromEntries(Object.entries(node.inputs).map(([name, value]) => [name, value.shape]));
  const shapes: NodeShapes = {
    inputs,
    output: node.output.shape,
    has: (operand) => operand in node.inputs || operand in node.constants,
  };
  const op = ops[node.op] as Op<typeof node.attributes>;
  return op.forward(capabilities, shapes, node.attributes, weights, compact);
}
