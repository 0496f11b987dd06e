// The table of ops: one line per op. Names and types of attributes are derived from it, so that a new op is its own
// file, a line here and a test.

import * as attention from './attention.ts';
import * as channels from './channels.ts';
import * as conv2d from './conv2d.ts';
import * as denoising from './denoising.ts';
import * as elementwise from './elementwise.ts';
import * as heads from './heads.ts';
import * as linear from './linear.ts';
import * as norms from './norms.ts';
import type { Op } from './op.ts';
import * as posterior from './posterior.ts';
import * as resample from './resample.ts';
import * as samples from './samples.ts';
import * as sums from './sums.ts';

const table = {
  conv2d: conv2d.conv2dOp,
  linear: linear.linearOp,
  groupNorm: norms.groupNormOp,
  groupNormAffine: norms.groupNormAffineOp,
  groupNormGradient: norms.groupNormGradientOp,
  groupNormSums: norms.groupNormSumsOp,
  layerNorm: norms.layerNormOp,
  layerNormGradient: norms.layerNormGradientOp,
  normScaleGradient: norms.normScaleGradientOp,
  attention: attention.attentionOp,
  attentionGradient: attention.attentionGradientOp,
  activation: elementwise.activationOp,
  activationGradient: elementwise.activationGradientOp,
  geglu: elementwise.gegluOp,
  add: elementwise.addOp,
  addRows: elementwise.addRowsOp,
  gatedAdd: elementwise.gatedAddOp,
  addImage: elementwise.addImageOp,
  multiply: elementwise.multiplyOp,
  scaled: elementwise.scaledOp,
  scaleRows: elementwise.scaleRowsOp,
  concat: channels.concatOp,
  slice: channels.sliceOp,
  depthToSpace: channels.depthToSpaceOp,
  upsample: resample.upsampleOp,
  averagePool: resample.averagePoolOp,
  gather: samples.gatherOp,
  gatherGradient: samples.gatherGradientOp,
  pickSamples: samples.pickSamplesOp,
  sumPicked: samples.sumPickedOp,
  sumSamples: samples.sumSamplesOp,
  pickHead: heads.pickHeadOp,
  pickHeadBackward: heads.pickHeadBackwardOp,
  flatten: posterior.flattenOp,
  unflatten: posterior.unflattenOp,
  posterior: posterior.posteriorOp,
  posteriorGradient: posterior.posteriorGradientOp,
  mix: denoising.mixOp,
  slotsGradient: denoising.slotsGradientOp,
  scaleByLevel: denoising.scaleByLevelOp,
  errors: denoising.errorsOp,
  errorsGradient: denoising.errorsGradientOp,
  inputGradient: conv2d.inputGradientOp,
  weightGradient: conv2d.weightGradientOp,
  padChannels: channels.padChannelsOp,
  spaceToDepth: channels.spaceToDepthOp,
  pad: resample.padOp,
  upsampleGradient: resample.upsampleGradientOp,
  averagePoolGradient: resample.averagePoolGradientOp,
  sumPixels: sums.sumPixelsOp,
  sumColumns: sums.sumColumnsOp,
} as const satisfies Readonly<Record<string, Op<never>>>;

export type OpName = keyof typeof table;

/** The attributes of each op, by its name. */
export type OpAttributes = {
  readonly [Name in OpName]: (typeof table)[Name] extends Op<infer Attributes> ? Attributes : never;
};

export const ops: { readonly [Name in OpName]: Op<OpAttributes[Name]> } = table;

/** The op of a node, for callers that do not know which one it is. */
export const opOf = (node: { readonly op: OpName }): Op<OpAttributes[OpName]> => ops[node.op];

const names = new Map<unknown, OpName>((Object.keys(table) as OpName[]).map((name) => [table[name], name]));

/**
 * Returns the name of an op, for backward functions, which refer to the op itself: they lie below this table.
 * @throws Error if the op has no line in the table.
 */
export function nameOfOp<Attributes>(op: Op<Attributes>): OpName {
  const name = names.get(op);
  if (!name) throw new Error('an op that a backward function uses is missing in ops/table.ts');
  return name;
}
