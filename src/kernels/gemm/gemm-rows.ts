// A matrix product of two factors that both lie along their rows: c[m][n] = Σ_k a[m][k] b[n][k], for the family of
// software adapters. No factor is transposed: a lane loads four consecutive k of a row, whereas in `gemmSubgroup` it loads
// four consecutive rows or columns of one k.
//
// Gradients of 1x1 weights on lavapipe (2 cores, Mesa 25.0.7), in ms: with both factors transposed and `gemmSubgroup`, and
// here: 48 -> 16 channels at 28x28, n = 64: 7.2, 2.0; 128 -> 128 at 32x32, n = 8: 7.0, 5.5; the same at 16x16: 1.80, 1.42.

import type { Capabilities } from '../device/device.ts';
import { blocks } from '../device/indexing.ts';
import { ceilDiv, defineKernel, type Kernel, read, u32, write } from '../device/kernel.ts';
import { type Matrices, unroll } from './gemm-spec.ts';

export interface RowsSpec {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly a: Pick<Matrices, 'pitch' | 'offset'>;
  readonly b: Pick<Matrices, 'pitch' | 'offset'>;
  readonly c: Pick<Matrices, 'pitch'>;
  /** The k are summed in parts of this many, a multiple of 4: c holds one matrix [m][n] for each. */
  readonly part: number;
}

/**
 * Returns the kernel, whose operands are `a b c`. Rows of a and b have room for k rounded up to a multiple of 4.
 *
 * A workgroup is one subgroup. With 8 lanes it computes 32 rows (16 if there are no more) and up to 32 columns of c. For
 * every four k a lane loads a vec4 of each of its 4 rows of a, whose elements are broadcast, and of its up to 4 rows of b.
 */
export function gemmRows(
  { subgroupSize: lanes }: Capabilities,
  { m, n, k, a, b, c, part }: RowsSpec,
): Kernel {
  const load = m <= 2 * lanes ? 2 : 4;
  const rows = load * lanes;
  // The columns per lane that leave the fewest lanes idle, and then the most.
  const idle = (each: number) => ceilDiv(n, lanes * each) * lanes * each - n;
  const each = [4, 3, 2, 1].reduce((best, count) => (idle(count) < idle(best) ? count : best));
  const walk = blocks(lanes, {
    rowBlocks: ceilDiv(m, rows),
    columnBlocks: ceilDiv(n, lanes * each),
    parts: ceilDiv(k, part),
  });
  const masked = k % 4 !== 0;
  const element = (vector: string) => (masked ? `select(vec4f(), ${vector}, inside)` : vector);
  return defineKernel({
    name: `gemm.rows.${rows}x${lanes * each}${masked ? '.masked' : ''}`,
    enable: ['subgroups'],
    bindings: [read('a', 'vec4f'), read('b', 'vec4f'), write('c')],
    uniforms: [
      ...walk.uniforms,
      u32('m', m),
      u32('n', n),
      u32('k', k),
      u32('part', part / 4),
      u32('vectors', ceilDiv(k, 4)),
      u32('aPitch', a.pitch / 4),
      u32('aOffset', (a.offset ?? 0) / 4),
      u32('bPitch', b.pitch / 4),
      u32('bOffset', (b.offset ?? 0) / 4),
      u32('cPitch', c.pitch),
    ],
    body: /* wgsl */ `const LANES = ${lanes}u;
${walk.main(/* wgsl */ `let row = rowBlock * ${rows};
  let column = columnBlock * ${lanes * each} + local;
  ${unroll(load, (r) => `let a${r} = min(row + ${r}u * LANES + local, u.m - 1) * u.aPitch + u.aOffset;`)}
  ${unroll(each, (j) => `let b${j} = min(column + ${j}u * LANES, u.n - 1) * u.bPitch + u.bOffset;`)}
  ${unroll(rows, (i) => unroll(each, (j) => `var c${i}_${j} = 0.0;`))}
  let end = min((part + 1) * u.part, u.vectors);
  for (var v = part * u.part; v < end; v++) {
    ${masked ? 'let inside = 4 * v + vec4u(0, 1, 2, 3) < vec4u(u.k);' : ''}
    ${unroll(load, (r) => `let x${r} = ${element(`a[a${r} + v]`)};`)}
    ${unroll(each, (j) => `let y${j} = ${element(`b[b${j} + v]`)};`)}
    ${unroll(
      rows,
      (
        i,
      ) => `{ ${unroll(4, (s) => `let t${s} = subgroupBroadcast(x${Math.floor(i / lanes)}[${s}], ${i % lanes}u);`)}
    ${unroll(each, (j) => `c${i}_${j} = fma(t3, y${j}.w, fma(t2, y${j}.z, fma(t1, y${j}.y, fma(t0, y${j}.x, c${i}_${j}))));`)} }`,
    )}
  }
  let last = min(row + ${rows}, u.m);
  for (var i = row; i < last; i++) {
    let to = (part * u.m + i) * u.cPitch + column;
    ${unroll(each, (j) => `if (column + ${j}u * LANES < u.n) { c[to + ${j}u * LANES] = c0_${j}; }`)}
    ${unroll(rows - 1, (i) => unroll(each, (j) => `c${i}_${j} = c${i + 1}_${j};`))}
  }`)}`,
    grid: walk.grid,
  });
}
