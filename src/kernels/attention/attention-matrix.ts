// Attention on matrix units in one kernel: scores and values are matrix products with f16 factors and f32 sums, and the
// softmax between them is f32. Scores never leave a workgroup, so memory does not grow with the number of keys squared.
//
// A subgroup owns as many queries as it has lanes: the columns of its scores, of their softmax and of its results. A
// workgroup stages its queries once, and then keys and values in blocks. The softmax is computed online (Milakov &
// Gimelshein 2018, Dao et al. 2022): weights are powers of two relative to a reference per query. If a block has a score
// far above the reference, the reference is raised and the results so far are rescaled. The reference is a whole
// number, so that rescaling is exact and no query's bytes depend on the queries next to it.
//
// Not measured on a GPU yet. On Mesa 26.2.6 it serves to test the family, and is slow as all matrix products are there.

import type { Capabilities } from '../device/device.ts';
import {
  ceilDiv,
  defineKernel,
  f32,
  type Kernel,
  LINEAR_GROUP,
  linearGrid,
  read,
  u32,
  write,
} from '../device/kernel.ts';
import type { MatrixUnit } from '../device/matrix-units.ts';
import type { Routine } from '../device/routine.ts';
import { bucket } from '../device/shape-class.ts';
import { pitch } from '../device/tensor.ts';
import { type TiledKernel, tunedKernel } from '../device/tuning.ts';
import { unroll } from '../gemm/gemm-spec.ts';
import { MATRIX_MODULE } from '../gemm/matrix-body.ts';
import { lanesOf } from '../gemm/matrix-tile.ts';
import { unitsOf } from '../gemm/matrix-tiles.ts';
import { attentionByGemm } from './attention-gemm.ts';
import type { AttentionOptions } from './attention-options.ts';

/** How a workgroup divides an attention. */
export interface AttentionTile {
  readonly unit: MatrixUnit;
  /** Subgroups of a workgroup; each owns one query per lane. */
  readonly subgroups: number;
  /** Keys of a block: a multiple of the unit's M and K. */
  readonly keys: number;
}

/** f16 values between rows in workgroup memory, so that units read from different banks. */
const PAD = 8;

/** How far, in powers of two, a score may exceed the reference before it is raised: 2^8 is far from f16's 65504. */
const HEADROOM = 8;

const roundUp = (value: number, part: number): number => ceilDiv(value, part) * part;

/** The sizes of the arrays in workgroup memory, in elements, and the rows of a head in products. */
function sizesOf({ unit, subgroups, keys }: AttentionTile, lanes: number, headDim: number) {
  const depth = roundUp(headDim, unit.K);
  const rows = roundUp(headDim, unit.M);
  const queries = subgroups * lanes;
  return {
    /** Channels of a head, filled up for the products of keys and queries. */
    depth,
    /** Channels of a head, filled up for the products of values and weights. */
    rows,
    queries,
    queryPitch: queries + PAD,
    keyPitch: keys + PAD,
    tileQ: depth * (queries + PAD),
    tileK: depth * (keys + PAD),
    tileV: rows * (keys + PAD),
    scores: queries * Math.max(keys, unit.M),
    weights: subgroups * keys * (lanes + PAD),
  };
}

/** Returns why a tile is impossible for heads on a device, or undefined if it is possible. */
export function attentionFault(
  tile: AttentionTile,
  device: Pick<Capabilities, 'subgroupSize' | 'subgroupMaxSize' | 'workgroupBytes' | 'maxInvocations'>,
  headDim: number,
): string | undefined {
  const { unit, keys } = tile;
  const lanes = lanesOf(device);
  if (keys % unit.M !== 0 || keys % unit.K !== 0) return 'the keys are not a multiple of the unit';
  if (lanes % unit.N !== 0) return 'the lanes are not a multiple of the unit';
  const { queries, tileQ, tileK, tileV, scores, weights } = sizesOf(tile, lanes, headDim);
  if (queries > device.maxInvocations)
    return `${queries} invocations, the device allows ${device.maxInvocations}`;
  const bytes = 2 * (tileQ + tileK + tileV + weights) + 4 * scores + 16;
  if (bytes > device.workgroupBytes)
    return `${bytes} bytes of workgroup memory, the device has ${device.workgroupBytes}`;
  return undefined;
}

/** Returns the possible tiles, those with most queries and keys first. */
function tilesFor(capabilities: Capabilities, { headDim }: AttentionOptions): AttentionTile[] {
  const [unit] = unitsOf(capabilities);
  if (!unit) return [];
  const least = Math.max(unit.M, unit.K);
  return [4, 2, 1]
    .flatMap((subgroups) => [2, 4, 1].map((blocks) => ({ unit, subgroups, keys: blocks * least })))
    .filter((tile) => attentionFault(tile, capabilities, headDim) === undefined);
}

/** The attention of the `matrix` family with its tiles as data. The keys of a block decide the order of sums. */
const MATRIX_ATTENTION: TiledKernel<AttentionOptions, AttentionTile> = {
  shapeOf: ({ heads, headDim, n, queries, keys }) => ({
    kernel: 'attention.matrix',
    types: 'f32',
    sizes: { headDim, matrices: bucket(heads * n), queries: bucket(queries), keys: bucket(keys) },
  }),
  nameOf: ({ unit, subgroups, keys }) => `${unit.M}x${unit.N}x${unit.K}.${subgroups}x${keys}`,
  rule: (capabilities, options) => tilesFor(capabilities, options)[0]!,
  candidates(capabilities, options) {
    const tiles = tilesFor(capabilities, options);
    return tiles.filter(({ keys }) => keys === tiles[0]!.keys);
  },
  kernel: attentionMatrixKernel,
  example: { heads: 8, headDim: 64, n: 1, queries: 1024, keys: 1024, scale: 0.125 },
};

/** Returns the routine on matrix units, or products around a softmax for heads that do not fit a workgroup. */
export function attentionMatrix(capabilities: Capabilities, options: AttentionOptions): Routine {
  if (tilesFor(capabilities, options).length === 0) return attentionByGemm(capabilities, options);
  const kernel = tunedKernel(MATRIX_ATTENTION, capabilities, options);
  return { steps: [{ kernel, operands: ['q', 'k', 'v', 'y'] }], scratch: {}, packing: {} };
}

/** Returns the kernel with a tile that is possible on the device (`attentionFault`). Its operands are those of `attention`. */
export function attentionMatrixKernel(
  capabilities: Capabilities,
  options: AttentionOptions,
  tile: AttentionTile,
): Kernel {
  const { heads, headDim, n, queries, keys, scale, causal = false } = options;
  const { unit } = tile;
  const lanes = lanesOf(capabilities);
  const sizes = sizesOf(tile, lanes, headDim);
  const threads = sizes.queries;
  const across = lanes / unit.N;
  const down = sizes.rows / unit.M;
  const scoresDown = tile.keys / unit.M;
  const weightPitch = lanes + PAD;
  const blocks = ceilDiv(queries, sizes.queries);
  const left = `subgroup_matrix_left<f16, ${unit.K}, ${unit.M}>`;
  const right = `subgroup_matrix_right<f16, ${unit.N}, ${unit.K}>`;
  const result = `subgroup_matrix_result<f32, ${unit.N}, ${unit.M}>`;
  /** Returns WGSL that stages rows of tokens: pairs of tokens, from \`from\`, of the channels of a head. */
  const stage = (target: string, rows: number, tokens: number, x: string) => /* wgsl */ `
  for (var i = index; i < ${(rows * tokens) / 2}u; i += ${threads}u) {
    let d = i / ${tokens / 2}u;
    let t = i % ${tokens / 2}u * 2u;
    ${target}[(d * ${tokens + PAD}u + t) / 2u] = ${x}Pair(d, first${x === 'q' ? 'Query' : 'Key'} + t, origin${x === 'q' ? 'Q' : 'K'});
  }`;
  // Rows of an even number of tokens are loaded as pairs.
  const elementOf = (x: string) => ((x === 'q' ? queries : keys) % 2 === 0 ? 'vec2f' : 'f32');
  const pair = (x: string, count: string, rowPitch: string) => /* wgsl */ `
fn ${x}Pair(d: u32, token: u32, origin: u32) -> vec2<f16> {
  var values = vec2f();
  if (d < ${headDim}u && token < ${count}) {
    let at = origin + d * ${rowPitch} + token;
    ${
      elementOf(x) === 'vec2f'
        ? `values = ${x}[at / 2u];`
        : `values.x = ${x}[at];
    if (token + 1u < ${count}) { values.y = ${x}[at + 1u]; }`
    }
  }
  return vec2<f16>(values${x === 'q' ? ' * u.scale' : ''});
}`;
  // Scores: rows are keys, columns are the subgroup's queries.
  const scoreProducts = /* wgsl */ `
    ${unroll(scoresDown, (i) => unroll(across, (j) => `var s${i}_${j} = ${result}();`))}
    for (var d = 0u; d < ${sizes.depth}u; d += ${unit.K}u) {
      ${unroll(across, (j) => `let q${j} = subgroupMatrixLoad<${right}, row_major>(&tileQ, (d * ${sizes.queryPitch}u + ownQuery + ${j * unit.N}u) / 2u, ${sizes.queryPitch / 2}u);`)}
      ${unroll(
        scoresDown,
        (
          i,
        ) => `{ let k0 = subgroupMatrixLoad<${left}, col_major>(&tileK, (d * ${sizes.keyPitch}u + ${i * unit.M}u) / 2u, ${sizes.keyPitch / 2}u);
      ${unroll(across, (j) => `s${i}_${j} = subgroupMatrixMultiplyAccumulate(k0, q${j}, s${i}_${j});`)} }`,
      )}
    }
    ${unroll(scoresDown, (i) => unroll(across, (j) => `subgroupMatrixStore<row_major>(&scores, ownScores + ${i * unit.M * lanes + j * unit.N}u, s${i}_${j}, ${lanes}u);`))}`;
  const valueProducts = /* wgsl */ `
    for (var t = 0u; t < ${tile.keys}u; t += ${unit.K}u) {
      ${unroll(across, (j) => `let p${j} = subgroupMatrixLoad<${right}, row_major>(&weights, ownWeights + t * ${weightPitch}u + ${j * unit.N}u, ${weightPitch}u);`)}
      ${unroll(
        down,
        (
          i,
        ) => `{ let v0 = subgroupMatrixLoad<${left}, row_major>(&tileV, (${i * unit.M * sizes.keyPitch}u + t) / 2u, ${sizes.keyPitch / 2}u);
      ${unroll(across, (j) => `o${i}_${j} = subgroupMatrixMultiplyAccumulate(v0, p${j}, o${i}_${j});`)} }`,
      )}
    }`;
  const move = (i: number, each: string, back: boolean) => /* wgsl */ `
      ${unroll(across, (j) => `subgroupMatrixStore<row_major>(&scores, ownScores + ${j * unit.N}u, o${i}_${j}, ${lanes}u);`)}
      workgroupBarrier();
      for (var r = 0u; r < ${unit.M}u; r++) { ${each} }
      workgroupBarrier();
      ${
        back
          ? `${unroll(across, (j) => `o${i}_${j} = subgroupMatrixLoad<${result}, row_major>(&scores, ownScores + ${j * unit.N}u, ${lanes}u);`)}
      workgroupBarrier(); // before the next matrix or the next block's scores overwrite it`
          : ''
      }`;
  const rescale = /* wgsl */ `
      ${unroll(down, (i) => move(i, `scores[ownScores + r * ${lanes}u + lane] *= shrink;`, true))}`;
  const body = /* wgsl */ `
var<workgroup> tileQ: array<vec2<f16>, ${sizes.tileQ / 2}>;
var<workgroup> tileK: array<vec2<f16>, ${sizes.tileK / 2}>;
var<workgroup> tileV: array<vec2<f16>, ${sizes.tileV / 2}>;
var<workgroup> scores: array<f32, ${sizes.scores}>;
var<workgroup> weights: array<f16, ${sizes.weights}>;
var<workgroup> raised: u32;
${LINEAR_GROUP}
${pair('q', 'u.queries', 'u.qPitch')}
${pair('k', 'u.keys', 'u.kPitch')}
${pair('v', 'u.keys', 'u.kPitch')}
@compute @workgroup_size(${threads})
fn main(@builtin(local_invocation_index) index: u32, @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let place = linearGroup(group, groups);
  if (place >= u.groups) { return; }
  let matrix = place / u.blocks;
  let head = matrix / u.n;
  let sample = matrix - head * u.n;
  let firstQuery = (place - matrix * u.blocks) * ${sizes.queries}u;
  let originQ = head * ${headDim}u * u.qPitch + sample * u.queries;
  let originK = head * ${headDim}u * u.kPitch + sample * u.keys;
  let lane = index % ${lanes}u;
  let subgroup = subgroupBroadcastFirst(index / ${lanes}u);
  let ownQuery = subgroup * ${lanes}u;
  let ownScores = subgroup * ${sizes.scores / tile.subgroups}u;
  let ownWeights = subgroup * ${sizes.weights / tile.subgroups}u;
  let query = firstQuery + ownQuery + lane;
  ${unroll(down, (i) => unroll(across, (j) => `var o${i}_${j}: ${result};`))}
  var reference = 0.0;
  var sum = 0.0;
  ${stage('tileQ', sizes.depth, sizes.queries, 'q')}
  let end = ${causal ? `min(u.keys, firstQuery + ${sizes.queries}u)` : 'u.keys'};
  for (var firstKey = 0u; firstKey < end; firstKey += ${tile.keys}u) {
    ${stage('tileK', sizes.depth, tile.keys, 'k')}
    ${stage('tileV', sizes.rows, tile.keys, 'v')}
    if (index == 0u) { raised = 0u; }
    workgroupBarrier();
    ${scoreProducts}
    workgroupBarrier();
    let seen = min(${causal ? 'min(u.keys, query + 1u)' : 'u.keys'} - min(firstKey, ${causal ? 'min(u.keys, query + 1u)' : 'u.keys'}), ${tile.keys}u);
    var top = -3e38;
    for (var r = 0u; r < seen; r++) { top = max(top, scores[ownScores + r * ${lanes}u + lane]); }
    var shrink = 1.0;
    if (firstKey == 0u) {
      reference = ceil(top);
    } else if (top > reference + ${HEADROOM}.0) {
      let above = ceil(top);
      shrink = exp2(max(reference - above, -126.0));
      reference = above;
      sum *= shrink;
      raised = 1u;
    }
    for (var r = 0u; r < ${tile.keys}u; r++) {
      var weight = f16();
      if (r < seen) { weight = f16(exp2(max(scores[ownScores + r * ${lanes}u + lane] - reference, -126.0))); }
      weights[ownWeights + r * ${weightPitch}u + lane] = weight;
      sum += f32(weight);
    }
    if (workgroupUniformLoad(&raised) == 1u) {
      ${rescale}
    }
    ${valueProducts}
    workgroupBarrier();
  }
  ${unroll(down, (i) =>
    move(
      i,
      `let d = ${i * unit.M}u + r;
      if (d < ${headDim}u && query < u.queries) { y[originQ + d * u.qPitch + query] = scores[ownScores + r * ${lanes}u + lane] / sum; }`,
      false,
    ),
  )}
}
`;
  return defineKernel({
    name: `attention.matrix.${causal ? 'causal.' : ''}${headDim}.${MATRIX_ATTENTION.nameOf(tile)}.${elementOf('q')}.${elementOf('k')}`,
    ...MATRIX_MODULE,
    bindings: [...['q', 'k', 'v'].map((x) => read(x, elementOf(x))), write('y')],
    uniforms: [
      u32('groups', heads * n * blocks),
      u32('blocks', blocks),
      u32('n', n),
      u32('queries', queries),
      u32('keys', keys),
      u32('qPitch', pitch([1, n, 1, queries])),
      u32('kPitch', pitch([1, n, 1, keys])),
      f32('scale', scale * Math.LOG2E),
    ],
    body,
    grid: linearGrid(heads * n * blocks),
  });
}
