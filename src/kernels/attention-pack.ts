// Moving heads between rows of activations and the padded matrices that a GEMM reads.

import type { Capabilities } from './device.ts';
import { divisor, QUOTIENT, walk } from './indexing.ts';
import { type Binding, ceilDiv, defineKernel, type Kernel, read, u32, write } from './kernel.ts';

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

/** A kernel that moves `count` elements, one a step of a walk; `width` is the length of the packed rows. */
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
/** Where channel \`row\` of head h lies at token t of sample s. */
fn element(h: u32, s: u32, row: u32, t: u32) -> u32 { return (h * u.dim + row) * u.pitch + s * u.tokens + t; }
${main(body)}`,
    grid,
  });
}

/** packed[h][s][d][t] = x[h·dim + d][s][t]; a step moves four tokens, the last one repeated behind the end. */
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

/** packed[h][s][t][d] = x[h·dim + d][s][t]; a step moves four channels, the last one repeated behind the end. */
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
