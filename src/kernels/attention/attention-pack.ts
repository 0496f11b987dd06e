// Heads as the matrices that a GEMM reads: in place in the rows of an activation, or copied to padded rows.

import type { Capabilities } from '../device/device.ts';
import { divisor, QUOTIENT, walk } from '../device/indexing.ts';
import { type Binding, defineKernel, type Kernel, pad4, read, u32, write } from '../device/kernel.ts';
import type { Step } from '../device/routine.ts';
import { pitch } from '../device/tensor.ts';
import type { Matrices } from '../gemm/gemm-spec.ts';
import type { AttentionOptions } from './attention-options.ts';

/** Heads of an activation [heads·dim, n, 1, tokens]. */
export interface Heads {
  readonly heads: number;
  readonly dim: number;
  readonly n: number;
  readonly tokens: number;
  /** Elements from one row of the activation to the next. */
  readonly pitch: number;
}

/** Returns the heads of an operand with that many tokens: the queries or the keys of an attention. */
export const headsOf = ({ heads, headDim, n }: AttentionOptions, tokens: number): Heads => ({
  heads,
  dim: headDim,
  n,
  tokens,
  pitch: pitch([1, n, 1, tokens]),
});

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

/**
 * Returns the kernel that copies heads x[h·dim + d][s][t] to rows along the tokens, packed[h][s][d][t], or along the
 * channels, packed[h][s][t][d]. A step moves four elements and repeats the last one after the end of a row.
 */
function copyHeads(capabilities: Capabilities, heads: Heads, along: Along): Kernel {
  const turned = along === 'dim';
  const [name, rows, four] = turned ? ['transpose', 'tokens', 'd'] : ['pack', 'dim', 't'];
  const inMatrix = `row - matrix * u.${rows}`;
  return mover(
    capabilities,
    name,
    heads,
    {
      bindings: [read('x'), write('packed', 'vec4f')],
      width: pad4(heads[along]) / 4,
      count: (heads.heads * copyOf('', heads, along).outer) / 4,
    },
    /* wgsl */ `
  let row = quotient(i, u.width, u.widthInverse);
  let matrix = quotient(row, u.${rows}, u.${rows}Inverse);
  let h = quotient(matrix, u.n, u.nInverse);
  let first = element(h, matrix - h * u.n, ${turned ? `0u, ${inMatrix}` : `${inMatrix}, 0u`});
  let ${four} = min(4u * (i - row * u.width) + vec4u(0, 1, 2, 3), vec4u(u.${along} - 1u))${turned ? ' * u.pitch' : ''};
  packed[i] = vec4f(x[first + ${four}.x], x[first + ${four}.y], x[first + ${four}.z], x[first + ${four}.w]);`,
  );
}

/** x[h·dim + d][s][t] = packed[h][s][d][t], the inverse of `copyHeads` along the tokens; a step moves one token. */
function unpackHeads(capabilities: Capabilities, heads: Heads): Kernel {
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

/** An operand, and the layout of its matrices [heads][n] in it. */
interface HeadMatrices {
  readonly operand: string;
  readonly pitch: number;
  readonly inner: number;
  readonly outer: number;
}

/** Returns the layout from matrix (h, s) and element `at` on. */
export const matricesAt = ({ pitch, inner, outer }: HeadMatrices, h = 0, s = 0, at = 0): Matrices => ({
  pitch,
  inner,
  outer,
  offset: h * outer + s * inner + at,
});

/** Returns the layout of heads in the rows of an activation. */
const inRows = (operand: string, { pitch, tokens, dim }: Heads): HeadMatrices => ({
  operand,
  pitch,
  inner: tokens,
  outer: dim * pitch,
});

/** What the rows of a copy run along: tokens (one row per channel), or channels (one row per token). */
type Along = 'tokens' | 'dim';

/** Returns the layout of a copy of heads, whose rows are padded to a multiple of 4. */
function copyOf(operand: string, heads: Heads, along: Along): HeadMatrices {
  const row = pad4(heads[along]);
  const inner = heads[along === 'tokens' ? 'dim' : 'tokens'] * row;
  return { operand, pitch: row, inner, outer: heads.n * inner };
}

/** Yields (start, size) of the parts that cover `count` in steps. */
export function* parts(count: number, step: number): Generator<readonly [start: number, size: number]> {
  for (let start = 0; start < count; start += step) yield [start, Math.min(step, count - start)];
}

/**
 * Returns functions that make the operands of products; they add the copies they need to a routine's steps and scratch.
 */
export function operandsOf(capabilities: Capabilities, steps: Step[], scratch: Record<string, number>) {
  const inScratch = (name: string, heads: Heads, along: Along): HeadMatrices => {
    const copy = copyOf(name, heads, along);
    scratch[name] = 4 * heads.heads * copy.outer;
    return copy;
  };
  const copied = (operand: string, copy: HeadMatrices, heads: Heads, along: Along): HeadMatrices => {
    steps.push({ kernel: copyHeads(capabilities, heads, along), operands: [operand, copy.operand] });
    return copy;
  };
  const inPlace = ({ tokens }: Heads) => tokens % 4 === 0;
  return {
    /** Channels as rows: in place, or a padded copy if rows of tokens are not whole vec4s. */
    channels: (operand: string, heads: Heads): HeadMatrices =>
      inPlace(heads)
        ? inRows(operand, heads)
        : copied(operand, inScratch(`${operand}Packed`, heads, 'tokens'), heads, 'tokens'),
    /** Tokens as rows: a transposed copy. */
    tokens: (operand: string, heads: Heads): HeadMatrices =>
      copied(operand, inScratch(`${operand}Transposed`, heads, 'dim'), heads, 'dim'),
    /** The result, with channels as rows: y itself, or a padded copy, which `finish` copies to y. */
    result: (heads: Heads): HeadMatrices =>
      inPlace(heads) ? inRows('y', heads) : inScratch('yPacked', heads, 'tokens'),
    finish(heads: Heads): void {
      if (inPlace(heads)) return;
      steps.push({ kernel: unpackHeads(capabilities, heads), operands: ['yPacked', 'y'] });
    },
  };
}

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
