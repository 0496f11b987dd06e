// How the benchmark case of each op is built from the shape of its main operand. This is a `Record` over the names of the
// ops, so that a new op does not compile before it has a line here.

import type { OpName } from '../graph/ops/table.ts';
import type { Shape } from '../kernels/device/tensor.ts';
import { type BenchCase, newCase } from './case.ts';
import type { CaseOption, CaseOptions } from './case-options.ts';
import {
  attentionCase,
  attentionGradientCase,
  conv2dCase,
  inputGradientCase,
  linearCase,
  weightGradientCase,
} from './product-builders.ts';

export interface Builder {
  /** What the shape is that of, in the op's own words. */
  readonly of: string;
  /** The options that the op uses. */
  readonly uses: readonly CaseOption[];
  /**
   * Returns the case of a shape [c, n, h, w].
   * @throws ShapeError if the op does not accept the shape or the options.
   */
  readonly build: (shape: Shape, options?: CaseOptions) => BenchCase;
}

const EPS = 1e-5;
/** Noise levels of a model, of which each sample has one. */
const LEVELS = 20;
/** The default of `CaseOptions.entries`. */
const ENTRIES = 10;

const shown = (x: Shape): string => `[${x}]`;
const rows = ([c, n]: Shape): Shape => [c, n, 1, 1];
const doubled = ([c, n]: Shape): Shape => [2 * c, n, 1, 1];
const index = (n: number): Shape => [1, n, 1, 1];
const upscaled = ([c, n, h, w]: Shape, factor: number): Shape => [c, n, factor * h, factor * w];

/** Returns the largest divisor of the channels that is 32 or less. */
function divisor(channels: number): number {
  for (let groups = 32; groups > 1; groups--) if (channels % groups === 0) return groups;
  return 1;
}

/** Returns the builder of an op whose operands all have the shape of x. */
const pointwise = (
  op: 'geglu' | 'add' | 'multiply',
  torch: (x: Shape) => Readonly<Record<string, unknown>> | undefined = () => undefined,
): Builder => ({
  of: 'x1 and x2',
  uses: [],
  build(x) {
    const same = torch(x);
    return newCase(op, shown(x), {
      attributes: {},
      inputs: { x1: x, x2: x },
      ...(same ? { torch: same } : {}),
    });
  },
});

/** Returns the builder of an op of group norms, of which some have `dy`, and the affine one has no activation. */
const groupNorm = (
  op: 'groupNorm' | 'groupNormGradient' | 'groupNormSums' | 'groupNormAffine',
  torch?: (x: Shape, groups: number) => Readonly<Record<string, unknown>>,
): Builder => ({
  of: 'x',
  uses: ['groups', 'embedding'],
  build(x, { groups = divisor(x[0]), embedding } = {}) {
    const backward = op === 'groupNormGradient' || op === 'groupNormSums';
    const inputs = {
      x,
      ...(backward ? { dy: x } : {}),
      ...(embedding ? { embedding: doubled(x) } : {}),
    };
    const name = `${shown(x)} G=${groups}${embedding ? ' scale shift' : ''}`;
    const same = torch ? { torch: torch(x, groups) } : {};
    return op === 'groupNormAffine'
      ? newCase(op, name, { attributes: { groups, eps: EPS }, inputs, ...same })
      : newCase(op, name, { attributes: { groups, eps: EPS, activation: 'silu' }, inputs, ...same });
  },
});

/** What the ops that noise images or measure errors have in common. */
const denoising = {
  lengths: { levels: 4 * LEVELS },
  noise: { kind: 'philox' },
  indices: { level: LEVELS, slot: ENTRIES, noise: 1000 },
} as const;

export const BUILDERS: Readonly<Record<OpName, Builder>> = {
  conv2d: {
    of: 'x',
    uses: [
      'channels',
      'kernel',
      'stride',
      'padding',
      'weights',
      'bias',
      'affine',
      'embedding',
      'residual',
      'scale',
      'upsample',
      'compact',
    ],
    build: conv2dCase,
  },
  linear: {
    of: 'x',
    uses: ['channels', 'activation', 'weights', 'bias', 'residual', 'scale'],
    build: linearCase,
  },
  weightGradient: {
    of: "the convolution's x",
    uses: ['channels', 'kernel', 'stride', 'padding'],
    build: weightGradientCase,
  },
  inputGradient: {
    of: "the convolution's x",
    uses: ['channels', 'stride', 'padding', 'residual', 'weights'],
    build: inputGradientCase,
  },
  attention: { of: 'the queries', uses: ['heads', 'keys', 'causal'], build: attentionCase },
  attentionGradient: { of: 'the queries', uses: ['heads', 'keys', 'causal'], build: attentionGradientCase },
  groupNorm: groupNorm('groupNorm', (x, groups) => ({ op: 'groupNorm', x, groups })),
  groupNormGradient: groupNorm('groupNormGradient'),
  groupNormSums: groupNorm('groupNormSums'),
  groupNormAffine: groupNorm('groupNormAffine'),
  layerNorm: {
    of: 'x',
    uses: [],
    build: (x) => newCase('layerNorm', shown(x), { attributes: { eps: EPS }, inputs: { x } }),
  },
  layerNormGradient: {
    of: 'x',
    uses: [],
    build: (x) => newCase('layerNormGradient', shown(x), { attributes: { eps: EPS }, inputs: { x, dy: x } }),
  },
  normScaleGradient: {
    of: "the norm's x",
    uses: [],
    build: (x) =>
      newCase('normScaleGradient', shown(rows(x)), { attributes: {}, inputs: { sums: doubled(x) } }),
  },
  activation: {
    of: 'x',
    uses: ['activation'],
    build: (x, { activation = 'silu' } = {}) =>
      newCase('activation', `${shown(x)} ${activation}`, { attributes: { activation }, inputs: { x } }),
  },
  activationGradient: {
    of: 'x',
    uses: ['activation'],
    build: (x, { activation = 'silu' } = {}) =>
      newCase('activationGradient', `${shown(x)} ${activation}`, {
        attributes: { activation },
        inputs: { x, dy: x },
      }),
  },
  geglu: pointwise('geglu'),
  add: pointwise('add', (x) => ({ op: 'add', x })),
  multiply: pointwise('multiply'),
  addRows: {
    of: 'x',
    uses: [],
    build: (x) => newCase('addRows', shown(x), { attributes: {}, inputs: { x, embedding: rows(x) } }),
  },
  gatedAdd: {
    of: 'x1 and x2',
    uses: [],
    build: (x) => newCase('gatedAdd', shown(x), { attributes: {}, inputs: { x1: x, x2: x, gate: rows(x) } }),
  },
  addImage: {
    of: 'x',
    uses: [],
    build: (x) => newCase('addImage', shown(x), { attributes: {}, inputs: { x } }),
  },
  scaled: {
    of: 'x',
    uses: ['scale'],
    build: (x, { scale = 0.5 } = {}) =>
      newCase('scaled', shown(x), { attributes: { factor: scale }, inputs: { x } }),
  },
  scaleRows: {
    of: 'x',
    uses: [],
    build: (x) => newCase('scaleRows', shown(x), { attributes: {}, inputs: { x, gate: rows(x) } }),
  },
  concat: {
    of: 'each of two parts',
    uses: [],
    build: (x) => newCase('concat', `${shown(x)} twice`, { attributes: {}, inputs: { x0: x, x1: x } }),
  },
  slice: {
    of: 'x',
    uses: ['channels'],
    build(x, { channels = Math.ceil(x[0] / 2) } = {}) {
      const from = x[0] - channels;
      return newCase('slice', `${shown(x)}, ${channels} channels`, {
        attributes: { from, count: channels },
        inputs: { x },
      });
    },
  },
  padChannels: {
    of: 'x',
    uses: ['channels'],
    build: (x, { channels = 2 * x[0] } = {}) =>
      newCase('padChannels', `${shown(x)} to ${channels} channels`, {
        attributes: { from: channels - x[0], channels },
        inputs: { x },
      }),
  },
  depthToSpace: {
    of: 'x',
    uses: ['stride'],
    build: (x, { stride = 2 } = {}) =>
      newCase('depthToSpace', `${shown(x)} block ${stride}`, {
        attributes: { block: stride },
        inputs: { x },
      }),
  },
  spaceToDepth: {
    of: 'x',
    uses: ['stride'],
    build: (x, { stride = 2 } = {}) =>
      newCase('spaceToDepth', `${shown(x)} block ${stride}`, {
        attributes: { block: stride },
        inputs: { x },
      }),
  },
  upsample: {
    of: 'x',
    uses: [],
    build: (x) => newCase('upsample', shown(x), { attributes: {}, inputs: { x } }),
  },
  upsampleGradient: {
    of: 'x, before upsampling',
    uses: [],
    build: (x) =>
      newCase('upsampleGradient', shown(x), {
        attributes: { size: [x[2], x[3]] },
        inputs: { dy: upscaled(x, 2) },
      }),
  },
  averagePool: {
    of: 'x',
    uses: [],
    build: (x) => newCase('averagePool', shown(x), { attributes: {}, inputs: { x } }),
  },
  averagePoolGradient: {
    of: 'dy',
    uses: [],
    build: (dy) =>
      newCase('averagePoolGradient', shown(dy), {
        attributes: { size: [2 * dy[2], 2 * dy[3]] },
        inputs: { dy },
      }),
  },
  pad: {
    of: 'x',
    uses: [],
    build: (x) =>
      newCase('pad', `${shown(x)} by 1`, {
        attributes: { offset: [1, 1], size: [x[2] + 2, x[3] + 2] },
        inputs: { x },
      }),
  },
  gather: {
    of: 'y',
    uses: ['entries'],
    build: (y, { entries = ENTRIES } = {}) =>
      newCase('gather', `${shown(rows(y))} of ${entries} rows`, {
        attributes: { entries, channels: y[0] },
        inputs: { index: index(y[1]) },
        indices: { index: entries },
      }),
  },
  gatherGradient: {
    of: 'dy',
    uses: ['entries'],
    build: (dy, { entries = ENTRIES } = {}) =>
      newCase('gatherGradient', `${shown(rows(dy))} of ${entries} rows`, {
        attributes: { entries, channels: dy[0] },
        inputs: { dy: rows(dy), index: index(dy[1]) },
        indices: { index: entries },
      }),
  },
  pickSamples: {
    of: 'y',
    uses: ['entries'],
    build: ([c, n, h, w], { entries = ENTRIES } = {}) =>
      newCase('pickSamples', `${shown([c, n, h, w])} of ${entries} samples`, {
        attributes: {},
        inputs: { x: [c, entries, h, w], index: index(n) },
        indices: { index: entries },
      }),
  },
  sumPicked: {
    of: 'dy',
    uses: ['entries'],
    build: (dy, { entries = ENTRIES } = {}) =>
      newCase('sumPicked', `${shown(dy)} to ${entries} samples`, {
        attributes: { samples: entries },
        inputs: { dy, index: index(dy[1]) },
        indices: { index: entries },
      }),
  },
  sumSamples: {
    of: 'x',
    uses: [],
    build: (x) => newCase('sumSamples', shown(x), { attributes: {}, inputs: { x } }),
  },
  pickHead: {
    of: 'y',
    uses: ['heads', 'entries'],
    build: ([c, n, h, w], { heads = 10, entries = ENTRIES } = {}) =>
      newCase('pickHead', `${shown([c, n, h, w])} of ${heads} heads, ${entries} views`, {
        attributes: { channels: c },
        inputs: { x: [heads * c, entries, h, w], label: index(n), view: index(n) },
        indices: { label: heads, view: entries },
      }),
  },
  pickHeadBackward: {
    of: 'dy',
    uses: ['heads', 'entries'],
    build: (dy, { heads = 10, entries = ENTRIES } = {}) =>
      newCase('pickHeadBackward', `${shown(dy)} to ${heads} heads, ${entries} views`, {
        attributes: { channels: dy[0], heads, views: entries },
        inputs: { dy, label: index(dy[1]), view: index(dy[1]) },
        indices: { label: heads, view: entries },
      }),
  },
  flatten: {
    of: 'x',
    uses: [],
    build: (x) => newCase('flatten', shown(x), { attributes: {}, inputs: { x } }),
  },
  unflatten: {
    of: 'y',
    uses: [],
    build: ([c, n, h, w]) =>
      newCase('unflatten', shown([c, n, h, w]), {
        attributes: { height: h, width: w },
        inputs: { x: [c * h * w, n, 1, 1] },
      }),
  },
  posterior: {
    of: 'x: images, samples',
    uses: [],
    build: (x) =>
      newCase('posterior', shown(rows(x)), {
        attributes: { levels: LEVELS },
        inputs: { x: rows(x), level: index(x[1]) },
        indices: { level: LEVELS },
      }),
  },
  posteriorGradient: {
    of: 'dy: images, samples',
    uses: [],
    build: (dy) =>
      newCase('posteriorGradient', shown(rows(dy)), {
        attributes: { levels: LEVELS },
        inputs: { p: rows(dy), dy: rows(dy), level: index(dy[1]) },
        indices: { level: LEVELS },
      }),
  },
  mix: {
    of: 'y',
    uses: [],
    build: ([c, n, h, w]) =>
      newCase('mix', shown([c, n, h, w]), {
        attributes: { noise: denoising.noise, image: [c, h, w] },
        inputs: {
          slots: [1, ENTRIES, 1, c * h * w],
          slot: index(n),
          level: index(n),
          noise: [1, n, 1, 4],
        },
        lengths: denoising.lengths,
        indices: denoising.indices,
      }),
  },
  slotsGradient: {
    of: 'dy',
    uses: [],
    build: (dy) =>
      newCase('slotsGradient', shown(dy), {
        attributes: { slots: ENTRIES },
        inputs: { dy, slot: index(dy[1]), level: index(dy[1]) },
        lengths: denoising.lengths,
        indices: denoising.indices,
      }),
  },
  scaleByLevel: {
    of: 'x',
    uses: [],
    build: (x) =>
      newCase('scaleByLevel', shown(x), {
        attributes: {},
        inputs: { x, level: index(x[1]) },
        lengths: denoising.lengths,
        indices: denoising.indices,
      }),
  },
  errors: {
    of: 'x_t',
    uses: [],
    build: (xt) =>
      newCase('errors', shown(xt), {
        attributes: { noise: denoising.noise, distance: 'l2', channels: xt[0] },
        inputs: { prediction: xt, xt, level: index(xt[1]), noise: [1, xt[1], 1, 4] },
        lengths: denoising.lengths,
        indices: denoising.indices,
      }),
  },
  errorsGradient: {
    of: 'x_t',
    uses: [],
    build: (xt) =>
      newCase('errorsGradient', shown(xt), {
        attributes: { noise: denoising.noise, distance: 'l2', channels: xt[0], of: 'prediction' },
        inputs: { prediction: xt, xt, level: index(xt[1]), noise: [1, xt[1], 1, 4], dy: index(xt[1]) },
        lengths: denoising.lengths,
        indices: denoising.indices,
      }),
  },
  sumPixels: {
    of: 'x',
    uses: [],
    build: (x) => newCase('sumPixels', shown(x), { attributes: {}, inputs: { x } }),
  },
  sumColumns: {
    of: 'x',
    uses: [],
    build: (x) => newCase('sumColumns', shown(x), { attributes: {}, inputs: { x } }),
  },
};
