// Heads as the matrices that a GEMM reads: in place in the rows of an activation, or copied to padded rows.

import type { Capabilities } from '../device/device.ts';
import { divisor, QUOTIENT, walk } from '../device/indexing.ts';
import { type Binding, ceilDiv, defineKernel, type Kernel, read, u32, write } from '../device/kernel.ts';
import type { Step } from '../device/routine.ts';
import type { Matrices } from '../gemm/gemm-spec.ts';

/** Heads of an activation [heads·dim, n, 1, tokens]. */
export interface Heads {
  readonly heads: number;
  readonly dim: number;
  readonly n: number;
  readonly tokens: number;
  /** Elements from one row of the activation to the next. */
  readonly pitch: number;
}

/** Rounds up to a multiple of 4. */
export const pad4 = (v: number): number => ceilDiv(v, 4) * 4;

/**
 * Returns the elements that `packHeads` writes: matrices [head][n] of dim rows of tokens, padded to a multiple of 4.
 */
export const packedHeads = ({ heads, dim, n, tokens }: Heads): number => heads * n * dim * pad4(tokens);

/**
 * Returns the elements that `transposeHeads` writes: matrices [head][n] of token rows of dim, padded to a
 * multiple of 4.
 */
export const transposedHeads = ({ heads, dim, n, tokens }: Heads): number => heads * n * tokens * pad4(dim);

/** Returns a kernel that moves `count` elements, one per step of a walk; `width` is the length of the packed rows. */
function mover(
  capabilities: Capabilities,
  name: string,
  { heads, dim, n, tokens, pitch }: Heads,
  { bindings, width, count }: { bindings: readonly Binding[]; width: number; count: number },
  body: string,
): Kernel {
  const { main, grid, uniforms } = walk(capabilities, count);
  return defineKernel({
    name: `attention.${name}`,
    bindings,
    uniforms: [
      ...uniforms,
      ...divisor('width', width),
      ...divisor('dim', dim),
      ...divisor('n', n),
      ...divisor('tokens', tokens),
      u32('heads', heads),
      u32('pitch', pitch),
    ],
    body: /* wgsl */ `${QUOTIENT}
/** Returns the index of channel \`row\` of head h at token t of sample s. */
fn element(h: u32, s: u32, row: u32, t: u32) -> u32 { return (h * u.dim + row) * u.pitch + s * u.tokens + t; }
${main(body)}`,
    grid,
  });
}

/** packed[h][s][d][t] = x[h·dim + d][s][t]; a step moves four tokens and repeats the last one after the end. */
export function packHeads(capabilities: Capabilities, heads: Heads): Kernel {
  return mover(
    capabilities,
    'pack',
    heads,
    {
      bindings: [read('x'), write('packed', 'vec4f')],
      width: pad4(heads.tokens) / 4,
      count: packedHeads(heads) / 4,
    },
    /* wgsl */ `
  let row = quotient(i, u.width, u.widthInverse);
  let matrix = quotient(row, u.dim, u.dimInverse);
  let h = quotient(matrix, u.n, u.nInverse);
  let first = element(h, matrix - h * u.n, row - matrix * u.dim, 0u);
  let t = min(4u * (i - row * u.width) + vec4u(0, 1, 2, 3), vec4u(u.tokens - 1u));
  packed[i] = vec4f(x[first + t.x], x[first + t.y], x[first + t.z], x[first + t.w]);`,
  );
}

/**
 * packed[h][s][t][d] = x[h·dim + d][s][t]; a step moves four channels and repeats the last one after the end.
 */
export function transposeHeads(capabilities: Capabilities, heads: Heads): Kernel {
  return mover(
    capabilities,
    'transpose',
    heads,
    {
      bindings: [read('x'), write('packed', 'vec4f')],
      width: pad4(heads.dim) / 4,
      count: transposedHeads(heads) / 4,
    },
    /* wgsl */ `
  let row = quotient(i, u.width, u.widthInverse);
  let matrix = quotient(row, u.tokens, u.tokensInverse);
  let h = quotient(matrix, u.n, u.nInverse);
  let first = element(h, matrix - h * u.n, 0u, row - matrix * u.tokens);
  let d = min(4u * (i - row * u.width) + vec4u(0, 1, 2, 3), vec4u(u.dim - 1u)) * u.pitch;
  packed[i] = vec4f(x[first + d.x], x[first + d.y], x[first + d.z], x[first + d.w]);`,
  );
}

/** x[h·dim + d][s][t] = packed[h][s][d][t], the inverse of `packHeads`; a step moves one token. */
export function unpackHeads(capabilities: Capabilities, heads: Heads): Kernel {
  return mover(
    capabilities,
    'unpack',
    heads,
    {
      bindings: [read('packed'), write('x')],
      width: pad4(heads.tokens),
      count: heads.heads * heads.dim * heads.n * heads.tokens,
    },
    /* wgsl */ `
  let row = quotient(i, u.tokens, u.tokensInverse);
  let matrix = quotient(row, u.dim, u.dimInverse);
  let h = quotient(matrix, u.n, u.nInverse);
  let t = i - row * u.tokens;
  x[element(h, matrix - h * u.n, row - matrix * u.dim, t)] = packed[row * u.width + t];`,
  );
}

/** The layout of the matrices [heads][n] of a tensor. */
export interface Place {
  readonly operand: string;
  readonly pitch: number;
  readonly inner: number;
  readonly outer: number;
}

/** Returns the layout from matrix (h, s) and element `at` on. */
export const from = ({ pitch, inner, outer }: Place, h = 0, s = 0, at = 0): Matrices => ({
  pitch,
  inner,
  outer,
  offset: h * outer + s * inner + at,
});

/** Returns the layout of heads in the rows of an activation. */
export const inRows = (operand: string, { pitch, tokens, dim }: Heads): Place => ({
  operand,
  pitch,
  inner: tokens,
  outer: dim * pitch,
});

/** Returns the layout of heads that `packHeads` copied. */
export const padded = (operand: string, { tokens, dim, n }: Heads): Place => ({
  operand,
  pitch: pad4(tokens),
  inner: dim * pad4(tokens),
  outer: n * dim * pad4(tokens),
});

/** Yields (start, size) of the parts that cover `count` in steps. */
export function* parts(count: number, step: number): Generator<readonly [start: number, size: number]> {
  for (let start = 0; start < count; start += step) yield [start, Math.min(step, count - start)];
}

/**
 * Returns functions that make factors of products; they add the copies they need to a routine's steps and
 * scratch.
 */
export const factors = (capabilities: Capabilities, steps: Step[], scratch: Record<string, number>) => ({
  /** Channels as rows: in place, or a padded copy if rows of tokens are not whole vec4s. */
  channels(operand: string, heads: Heads): Place {
    if (heads.tokens % 4 === 0) return inRows(operand, heads);
    const copy = `${operand}Packed`;
    scratch[copy] = 4 * packedHeads(heads);
    steps.push({ kernel: packHeads(capabilities, heads), operands: [operand, copy] });
    return padded(copy, heads);
  },
  /** Tokens as rows: a transposed copy. */
  tokens(operand: string, heads: Heads): Place {
    const copy = `${operand}Transposed`;
    scratch[copy] = 4 * transposedHeads(heads);
    steps.push({ kernel: transposeHeads(capabilities, heads), operands: [operand, copy] });
    const { dim, n, tokens } = heads;
    return {
      operand: copy,
      pitch: pad4(dim),
      inner: tokens * pad4(dim),
      outer: n * tokens * pad4(dim),
    };
  },
});

/**
 * Returns the heads, samples and queries of a part of the score matrices that has at most `limit` elements.
 */
export function scoreParts(
  { heads, n, queries }: { readonly heads: number; readonly n: number; readonly queries: number },
  /** Elements per query. */
  along: number,
  limit: number,
): { readonly headStep: number; readonly sampleStep: number; readonly queryStep: number } {
  const queryStep =
    along * pad4(queries) <= limit
      ? queries
      : Math.max(QUERY_STEP, Math.floor(limit / along / QUERY_STEP) * QUERY_STEP);
  const matrices = Math.max(1, Math.floor(limit / (along * pad4(Math.min(queryStep, queries)))));
  return {
    headStep: Math.min(heads, Math.max(1, Math.floor(matrices / n))),
    sampleStep: Math.min(n, matrices),
    queryStep,
  };
}

/** Queries per part are a multiple of this, a whole number of tiles in every family. */
const QUERY_STEP = 128;
