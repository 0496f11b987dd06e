// Moving heads between rows of activations and the padded matrices that a GEMM reads.

import { divisor, ELEMENTWISE_MAIN, LANES, LINEAR_INDEX, QUOTIENT } from './indexing.ts';
import { ceilDiv, defineKernel, type Kernel, linearGrid, read, u32, write } from './kernel.ts';

/** Heads of an activation [heads·dim, n, 1, tokens]. */
export interface Heads {
  readonly heads: number;
  readonly dim: number;
  readonly n: number;
  readonly tokens: number;
  /** Elements from one row of the activation to the next. */
  readonly pitch: number;
}

const pad4 = (v: number): number => ceilDiv(v, 4) * 4;

/** Elements of `packHeads`: matrices [head][n] of dim rows of tokens, padded to a multiple of 4. */
export const packedHeads = ({ heads, dim, n, tokens }: Heads): number => heads * n * dim * pad4(tokens);

/** Elements of `transposeHeads`: matrices [head][n] of token rows of dim, padded to a multiple of 4. */
export const transposedHeads = ({ heads, dim, n, tokens }: Heads): number => heads * n * tokens * pad4(dim);

const uniformsOf = ({ heads, dim, n, tokens, pitch }: Heads, width: number, count: number) => [
  ...divisor('width', width),
  ...divisor('dim', dim),
  ...divisor('n', n),
  ...divisor('tokens', tokens),
  u32('heads', heads),
  u32('pitch', pitch),
  u32('count', count),
];

const HEAD = /* wgsl */ `${LINEAR_INDEX}${QUOTIENT}
/** Element of channel \`row\` of head h at token t of sample s. */
fn element(h: u32, s: u32, row: u32, t: u32) -> u32 { return (h * u.dim + row) * u.pitch + s * u.tokens + t; }
`;

/** packed[h][s][d][t] = x[h·dim + d][s][t]; one invocation moves four tokens, the last one repeated behind the end. */
export function packHeads(heads: Heads): Kernel {
  const count = packedHeads(heads) / 4;
  return defineKernel({
    name: 'attention.pack',
    bindings: [read('x'), write('packed', 'vec4f')],
    uniforms: uniformsOf(heads, pad4(heads.tokens) / 4, count),
    body: /* wgsl */ `${HEAD}
${ELEMENTWISE_MAIN} {
  let i = linearIndex(group, groups, local);
  if (i >= u.count) { return; }
  let row = quotient(i, u.width, u.widthInverse);
  let matrix = quotient(row, u.dim, u.dimInverse);
  let h = quotient(matrix, u.n, u.nInverse);
  let first = element(h, matrix - h * u.n, row - matrix * u.dim, 0u);
  let t = min(4u * (i - row * u.width) + vec4u(0, 1, 2, 3), vec4u(u.tokens - 1u));
  packed[i] = vec4f(x[first + t.x], x[first + t.y], x[first + t.z], x[first + t.w]);
}
`,
    grid: linearGrid(ceilDiv(count, LANES)),
  });
}

/** packed[h][s][t][d] = x[h·dim + d][s][t]; one invocation moves four rows, the last one repeated behind the end. */
export function transposeHeads(heads: Heads): Kernel {
  const count = transposedHeads(heads) / 4;
  return defineKernel({
    name: 'attention.transpose',
    bindings: [read('x'), write('packed', 'vec4f')],
    uniforms: uniformsOf(heads, pad4(heads.dim) / 4, count),
    body: /* wgsl */ `${HEAD}
${ELEMENTWISE_MAIN} {
  let i = linearIndex(group, groups, local);
  if (i >= u.count) { return; }
  let row = quotient(i, u.width, u.widthInverse);
  let matrix = quotient(row, u.tokens, u.tokensInverse);
  let h = quotient(matrix, u.n, u.nInverse);
  let first = element(h, matrix - h * u.n, 0u, row - matrix * u.tokens);
  let d = min(4u * (i - row * u.width) + vec4u(0, 1, 2, 3), vec4u(u.dim - 1u)) * u.pitch;
  packed[i] = vec4f(x[first + d.x], x[first + d.y], x[first + d.z], x[first + d.w]);
}
`,
    grid: linearGrid(ceilDiv(count, LANES)),
  });
}

/** x[h·dim + d][s][t] = packed[h][s][d][t], the inverse of `packHeads`; one invocation moves one token. */
export function unpackHeads(heads: Heads): Kernel {
  const count = heads.heads * heads.dim * heads.n * heads.tokens;
  return defineKernel({
    name: 'attention.unpack',
    bindings: [read('packed'), write('x')],
    uniforms: uniformsOf(heads, pad4(heads.tokens), count),
    body: /* wgsl */ `${HEAD}
${ELEMENTWISE_MAIN} {
  let i = linearIndex(group, groups, local);
  if (i >= u.count) { return; }
  let row = quotient(i, u.tokens, u.tokensInverse);
  let matrix = quotient(row, u.dim, u.dimInverse);
  let h = quotient(matrix, u.n, u.nInverse);
  let t = i - row * u.tokens;
  x[element(h, matrix - h * u.n, row - matrix * u.dim, t)] = packed[row * u.width + t];
}
`,
    grid: linearGrid(ceilDiv(count, LANES)),
  });
}
