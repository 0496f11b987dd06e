// The gradients of attention, as matrix products around one kernel over the scores. For small heads two kernels without
// scores in memory are faster (attention-backward-fused.ts, attention-backward-tile.ts).
//
// With P = softmax(scale qᵀ k) (one row per query) and y = v Pᵀ:
//   dv = dy P, dP = dyᵀ v, dS = scale P (dP - Σ_j P dP), dq = k dSᵀ, dk = q dS.
// Scores are recomputed from q and k, and Σ_j P dP is summed together with the softmax's denominator, so
// nothing of the forward pass is kept. Three score matrices, computed in parts, are the scratch memory.
//
// On an H200 (bench/results/nvidia-h200.json), in TFLOP/s of the five products: 3.5 for 8 heads of 40 with 4,096 tokens
// (n = 4), 18.8 for 8 heads of 80 with 1,024 tokens (n = 16); the forward pass reaches 2.6 and 15.3 there.

import { ShapeError } from '../../errors.ts';
import type { Capabilities } from '../device/device.ts';
import { withoutMatrix } from '../device/families.ts';
import {
  accumulate,
  ceilDiv,
  defineKernel,
  f32,
  type Kernel,
  LINEAR_GROUP,
  linearGrid,
  pad4,
  u32,
  write,
} from '../device/kernel.ts';
import type { Routine, Step } from '../device/routine.ts';
import { gemm } from '../gemm/gemm.ts';
import { type Matrices, unroll } from '../gemm/gemm-spec.ts';
import type { AttentionGradients, GradientOptions } from './attention-options.ts';
import { type Heads, headsOf, matricesAt, operandsOf, parts, scoreParts } from './attention-pack.ts';
import { ATTENTIONS } from './families.ts';

/** The most bytes of a part's score matrices. */
const SCORE_BYTES = 64 * 2 ** 20;

interface ScoreGradient {
  readonly matrices: number;
  /** Rows of a matrix, and the token of the first. */
  readonly queries: number;
  readonly firstQuery: number;
  readonly keys: number;
  readonly scale: number;
  readonly causal: boolean;
  readonly of: AttentionGradients;
}

/**
 * Returns the kernel that replaces scores s by P and d = dP by dS, both [matrices][queries][keys padded to a multiple
 * of 4]. If dq is requested, it also writes `turned` = dSᵀ [matrices][keys][queries padded likewise].
 *
 * A team owns four rows, so that it transposes dS in registers, in blocks of 4x4. The first sweep finds the largest
 * score, the second sums e = exp(s - largest) and e dP, the third writes. On a GPU 16 invocations share the rows.
 */
function scoreGradient(capabilities: Capabilities, options: ScoreGradient): Kernel {
  const { matrices, queries, firstQuery, keys, scale, causal, of } = options;
  const members = ATTENTIONS[capabilities.family].scoreMembers;
  const shared = members > 1;
  const width = 8; // blocks of four rows per workgroup
  const masked = causal || keys % 4 !== 0;
  const turned = of !== 'kv';
  const rows = of !== 'q';
  const blocks = ceilDiv(queries, 4);
  const each = (line: (r: number) => string) => unroll(4, line);
  const reduce = (value: string, combine: (a: string, b: string) => string) =>
    shared
      ? /* wgsl */ `
  workgroupBarrier();
  shares[local.y][member] = ${value};
  workgroupBarrier();
  ${value} = shares[local.y][0];
  for (var m = 1u; m < ${members}u; m++) { ${value} = ${combine(value, 'shares[local.y][m]')}; }`
      : '';
  const seen = (r: number, value: string, none: string) =>
    masked ? `select(vec4f(${none}), ${value}, columns <= vec4u(last${r}))` : value;
  const largest = (v: string) => `max(max(${v}.x, ${v}.y), max(${v}.z, ${v}.w))`;
  const sweep = (body: string) => /* wgsl */ `
  for (var column = member; column < u.pitch; column += ${members}u) {
    ${masked ? 'let columns = 4u * column + vec4u(0, 1, 2, 3);' : ''}
    ${body}
  }`;
  return defineKernel({
    name: [
      'attentionScoreGradient',
      shared ? 'tile' : 'plain',
      of,
      ...(causal ? ['causal'] : masked ? ['masked'] : []),
    ].join('.'),
    bindings: [
      accumulate('s', 'vec4f'),
      accumulate('d', 'vec4f'),
      ...(turned ? [write('turned', 'vec4f')] : []),
    ],
    uniforms: [
      u32('items', matrices * blocks),
      u32('blocks', blocks),
      u32('queries', queries),
      u32('keys', keys),
      u32('pitch', pad4(keys) / 4),
      u32('firstQuery', firstQuery),
      f32('scale', scale),
    ],
    body: /* wgsl */ `
${LINEAR_GROUP}
${shared ? `var<workgroup> shares: array<array<vec4f, ${members}>, ${width}>;` : ''}
@compute @workgroup_size(${members}, ${width})
fn main(@builtin(local_invocation_id) local: vec3u, @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let member = local.x;
  let wanted = linearGroup(group, groups) * ${width}u + local.y;
  // Invocations past the last block write nothing but must still reach the barriers (uniform control flow).
  let item = min(wanted, u.items - 1u);
  let matrix = item / u.blocks;
  let block = item - matrix * u.blocks;
  ${each((r) => `let row${r} = min(4u * block + ${r}u, u.queries - 1u);`)}
  ${each((r) => `let at${r} = (matrix * u.queries + row${r}) * u.pitch;`)}
  ${each((r) => `let mine${r} = wanted == item && 4u * block + ${r}u < u.queries;`)}
  ${masked ? each((r) => `let last${r} = ${causal ? `min(u.firstQuery + row${r}, u.keys - 1u)` : 'u.keys - 1u'};`) : ''}
  var top = vec4f(-3e38);
  ${sweep(each((r) => `{ let v = ${seen(r, `s[at${r} + column]`, '-3e38')}; top[${r}] = max(top[${r}], ${largest('v')}); }`))}
  ${reduce('top', (a, b) => `max(${a}, ${b})`)}
  var sum = vec4f(0);
  var along = vec4f(0);
  ${sweep(/* wgsl */ `${each((r) => `let e${r} = ${seen(r, `exp(s[at${r} + column] - top[${r}])`, '0')};`)}
    ${each((r) => `sum[${r}] += dot(e${r}, vec4f(1)); along[${r}] += dot(e${r}, d[at${r} + column]);`)}
    ${each((r) => `if (mine${r}) { s[at${r} + column] = e${r}; }`)}`)}
  ${reduce('sum', (a, b) => `${a} + ${b}`)}
  ${reduce('along', (a, b) => `${a} + ${b}`)}
  let share = 1 / sum;
  let mean = along * share;
  ${sweep(/* wgsl */ `${each((r) => `let p${r} = s[at${r} + column] * share[${r}];`)}
    ${each((r) => `let g${r} = u.scale * p${r} * (d[at${r} + column] - mean[${r}]);`)}
    ${rows ? each((r) => `if (mine${r}) { s[at${r} + column] = p${r}; d[at${r} + column] = g${r}; }`) : ''}
    ${
      turned
        ? each(
            (k) =>
              `if (mine0 && 4u * column + ${k}u < u.keys) { turned[(matrix * u.keys + 4u * column + ${k}u) * u.blocks + block] = vec4f(g0[${k}], g1[${k}], g2[${k}], g3[${k}]); }`,
          )
        : ''
    }`)}
}
`,
    grid: linearGrid(ceilDiv(matrices * blocks, width)),
  });
}

/**
 * Returns a routine for the gradients of `attention`. Operands: q, k, v and dy (like q), and y [heads·headDim, n, 1,
 * queries] of dq, [2 heads·headDim, n, 1, keys] of dk and dv, or [3 heads·headDim, n, 1, tokens] of all three.
 *
 * Rows of the score matrices are queries. Therefore q and dy in place are the k-major factors of the first
 * two products, and the score matrices are those of dk and dv; only dq needs a transposed matrix. Token
 * counts that are not multiples of 4 need padded copies. If not even one matrix fits into a part, dk and dv
 * are summed over parts of the queries, alternating between y and a copy of it.
 * @throws ShapeError if all three are requested and the numbers of queries and keys differ.
 */
export function attentionGradient(device: Capabilities, options: GradientOptions): Routine {
  const capabilities = withoutMatrix(device); // products of gradients stay f32
  const { heads, headDim, n, queries, keys, scale, causal = false, of } = options;
  if (of === 'qkv' && queries !== keys)
    throw new ShapeError(
      `attentionGradient: expected as many keys as queries for gradients of one shape, got ${queries} queries and ${keys} keys`,
    );
  const { fusedGradient, fusedGradientUpTo } = ATTENTIONS[capabilities.family];
  if (headDim <= fusedGradientUpTo) return fusedGradient(capabilities, options);
  const queryHeads = headsOf(options, queries);
  const keyHeads = headsOf(options, keys);
  const steps: Step[] = [];
  const scratch: Record<string, number> = {};
  const { channels, tokens, result, finish } = operandsOf(capabilities, steps, scratch);
  const [ofQ, ofKeys] = [of !== 'kv', of !== 'q'];
  const q = channels('q', queryHeads);
  const k = channels('k', keyHeads);
  const v = channels('v', keyHeads);
  const dy = channels('dy', queryHeads);
  const kTurned = ofQ ? tokens('k', keyHeads) : undefined;
  const qTurned = ofKeys ? tokens('q', queryHeads) : undefined;
  const dyTurned = ofKeys ? tokens('dy', queryHeads) : undefined;

  // All gradients in y form the heads of one activation.
  const made: Heads = { ...(ofQ ? queryHeads : keyHeads), heads: of.length * heads };
  const y = result(made);
  const firstOf = (name: string) => of.indexOf(name) * heads;

  const limit = Math.min(SCORE_BYTES, capabilities.maxBindingBytes) / 4;
  const width = pad4(keys);
  const { headStep, sampleStep, queryStep } = scoreParts(options, width, limit);
  const queryParts = [...parts(queries, queryStep)];
  if (queryParts.length > 1 && ofKeys) scratch.carried = 4 * made.heads * y.outer;
  scratch.scores = 0;
  if (ofQ) scratch.turned = 0;
  for (const [h, headCount] of parts(heads, headStep))
    for (const [s, sampleCount] of parts(n, sampleStep))
      for (const [part, [t, count]] of queryParts.entries()) {
        const batch = [headCount, sampleCount] as const;
        const matrices = headCount * sampleCount;
        const scores: Matrices = { pitch: width, inner: count * width, outer: sampleCount * count * width };
        const turned: Matrices = {
          pitch: pad4(count),
          inner: keys * pad4(count),
          outer: sampleCount * keys * pad4(count),
        };
        scratch.scores = Math.max(scratch.scores, 4 * matrices * count * width);
        if (ofQ) scratch.turned = Math.max(scratch.turned!, 4 * matrices * keys * pad4(count));
        const product = { m: count, k: headDim, columns: keys, batch, c: scores };
        steps.push(
          {
            kernel: gemm(capabilities, {
              ...product,
              a: matricesAt(q, h, s, t),
              b: matricesAt(k, h, s),
              scale,
            }),
            operands: [q.operand, k.operand, 'scores'],
          },
          {
            kernel: gemm(capabilities, { ...product, a: matricesAt(dy, h, s, t), b: matricesAt(v, h, s) }),
            operands: [dy.operand, v.operand, 'reaching'],
          },
          {
            kernel: scoreGradient(capabilities, {
              matrices,
              queries: count,
              firstQuery: t,
              keys,
              scale,
              causal,
              of,
            }),
            operands: ['scores', 'reaching', ...(ofQ ? ['turned'] : [])],
          },
        );
        if (kTurned)
          steps.push({
            kernel: gemm(capabilities, {
              m: headDim,
              k: keys,
              columns: count,
              batch,
              a: matricesAt(kTurned, h, s),
              b: turned,
              c: matricesAt(y, firstOf('q') + h, s, t),
            }),
            operands: [kTurned.operand, 'turned', y.operand],
          });
        // Source and target alternate so that the last part's sums end in y.
        const [to, carried] =
          (queryParts.length - 1 - part) % 2 === 0 ? [y.operand, 'carried'] : ['carried', y.operand];
        for (const [name, factor, matrix] of [
          ['k', qTurned, 'reaching'],
          ['v', dyTurned, 'scores'],
        ] as const)
          if (factor)
            steps.push({
              kernel: gemm(capabilities, {
                m: headDim,
                k: count,
                columns: keys,
                batch,
                a: matricesAt(factor, h, s, t * factor.pitch),
                b: scores,
                c: matricesAt(y, firstOf(name) + h, s),
                residual: part > 0,
              }),
              operands: [factor.operand, matrix, ...(part > 0 ? [carried] : []), to],
            });
      }
  scratch.reaching = scratch.scores;
  finish(made);
  return { steps, scratch, packing: {} };
}
