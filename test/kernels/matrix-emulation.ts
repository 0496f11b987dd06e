// Rewrites a kernel on matrix units so that it runs on a device without them: each load only records the address of the
// matrix, and each product reads and sums the elements from there. So the addresses can be tested on a software driver,
// for units of any size and subgroups of any width.

import type { MatrixTile } from '../../bench/matrix-kernels/matrix-tile.ts';
import type { Kernel } from '../../src/kernels/device/kernel.ts';

/** Replaces every match, and fails if there is none. */
function replaced(text: string, pattern: RegExp, by: string): string {
  if (!pattern.test(text)) throw new Error(`emulation: expected a match of ${pattern}, got none`);
  return text.replace(pattern, by);
}

/** Returns the same kernel in plain WGSL. */
export function emulated(kernel: Kernel, tile: MatrixTile, lanes: number): Kernel {
  const { M, N, K } = tile.unit;
  const { load } = tile;
  const each = (M * N) / lanes;
  const [a, b] = tile.stage === 'direct' ? ['a', 'b'] : ['tileA', 'tileB'];
  const half = (name: string, i: string) =>
    load === 2
      ? `unpack2x16float(${name}[${i} / 2u])[${i} % 2u]`
      : `unpack2x16float(${name}[${i} / ${load}u][${i} / 2u % ${load / 2}u])[${i} % 2u]`;
  /** Returns WGSL of two words with four consecutive f16 values; `i` is a multiple of 4. */
  const words = (name: string, i: string): string =>
    ({
      2: `vec2u(${name}[${i} / 2u], ${name}[${i} / 2u + 1u])`,
      4: `${name}[${i} / 4u]`,
      8: `select(${name}[${i} / 8u].xy, ${name}[${i} / 8u].zw, (${i} & 4u) != 0u)`,
    })[load];
  const target = kernel.wgsl.includes('var<workgroup> scratch') ? 'scratch' : 'c';
  const parts = Array.from({ length: each / 4 }, (_, v) => v);
  // Uses vectors of four and constant indices, because a software driver compiles arrays and loops in each
  // product for minutes.
  const helpers = /* wgsl */ `
alias Sum = array<vec4f, ${each / 4}>;
fn multiply(a0: vec2u, b0: vec2u, sum: Sum, lane: u32) -> Sum {
  var next = sum;
  let r = lane * ${each}u / ${N}u;
  let s = lane * ${each}u % ${N}u;
  for (var k = 0u; k < ${K}u; k++) {
    let i = ${tile.a === 'k-major' ? `(a0.x + k * a0.y) * ${load}u + r` : `(a0.x + r * a0.y) * ${load}u + k`};
    let p = ${half(a!, 'i')};
    ${parts
      .map(
        (v) => `{ let j = (b0.x + k * b0.y) * ${load}u + s + ${4 * v}u;
    let w = ${words(b!, 'j')};
    next[${v}] += p * vec4f(unpack2x16float(w.x), unpack2x16float(w.y)); }`,
      )
      .join('\n    ')}
  }
  return next;
}
fn keep(at: u32, stride: u32, sum: Sum, lane: u32) {
  let first = at + lane * ${each}u / ${N}u * stride + lane * ${each}u % ${N}u;
  ${parts.flatMap((v) => [0, 1, 2, 3].map((e) => `${target}[first + ${4 * v + e}u] = sum[${v}][${e}];`)).join(' ')}
}
@compute`;
  let wgsl = kernel.wgsl
    .replace(/^diagnostic.*$/gm, '')
    .replace(/^enable .*$/gm, '')
    .replaceAll('subgroupBroadcastFirst(', '(');
  const majorA = tile.a === 'k-major' ? 'col_major' : 'row_major';
  wgsl = replaced(
    wgsl,
    new RegExp(
      `subgroupMatrixLoad<subgroup_matrix_left<f16, ${K}, ${M}>, ${majorA}>\\(&${a}, ([^,]*), ([^,;]*)\\);`,
      'g',
    ),
    'vec2u($1, $2);',
  );
  wgsl = replaced(
    wgsl,
    new RegExp(
      `subgroupMatrixLoad<subgroup_matrix_right<f16, ${N}, ${K}>, row_major>\\(&${b}, ([^,]*), ([^,;]*)\\);`,
      'g',
    ),
    'vec2u($1, $2);',
  );
  wgsl = replaced(wgsl, new RegExp(`: subgroup_matrix_result<f32, ${N}, ${M}>;`, 'g'), ': Sum;');
  wgsl = replaced(
    wgsl,
    /subgroupMatrixMultiplyAccumulate\((\w+), (\w+), (\w+)\)/g,
    'multiply($1, $2, $3, lane)',
  );
  wgsl = replaced(
    wgsl,
    new RegExp(`subgroupMatrixStore<row_major>\\(&${target}, ([^,]*), (\\w+), ([^,;]*)\\);`, 'g'),
    'keep($1, $3, $2, lane);',
  );
  wgsl = replaced(wgsl, /@compute/, helpers);
  if (/subgroup(Matrix|_matrix)/.test(wgsl))
    throw new Error('emulation: expected no matrix operations after rewriting, got some');
  return { ...kernel, name: `${kernel.name}.emulated`, wgsl };
}
