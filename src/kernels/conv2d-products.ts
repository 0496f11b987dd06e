// The matrix products between a convolution's transforms, for subgroups of few lanes. The operands are scratch of
// this routine's own making, padded to whole tiles, so that nothing is guarded.

import type { ColumnRange } from './conv2d-passes.ts';
import type { Capabilities } from './device.ts';
import { unroll } from './gemm-spec.ts';
import { ceilDiv, defineKernel, type Grid, type Kernel, MAX_GROUPS, read, u32, write } from './kernel.ts';

/** Columns of a tile. */
export const TILE_COLUMNS = 64;

/** Rows of a tile for `outChannels`; the products' rows are padded to it. */
export function tileRows({ subgroupSize }: Capabilities, outChannels: number): number {
  return outChannels <= 2 * subgroupSize || outChannels % (4 * subgroupSize) > 2 * subgroupSize
    ? 2 * subgroupSize
    : 4 * subgroupSize;
}

export interface ProductsSpec extends ColumnRange {
  readonly places: number;
  readonly rows: number;
}

/**
 * products[place][o][p] = sum over c of weight[place][c][o] transformed[place][c][p].
 * One workgroup is one subgroup and computes `rows` x 64: a lane loads its share of a row of weights, which is then
 * broadcast from lane to lane, and its own columns as vec4s.
 */
export function products({ subgroupSize: lanes }: Capabilities, spec: ProductsSpec): Kernel {
  const { places, count, pitch, inRows, outRows, inPlace, outPlace, rows } = spec;
  const load = rows / lanes;
  const vectors = TILE_COLUMNS / (4 * lanes);
  const lane = (name: string, i: number) =>
    `subgroupBroadcast(${name}[${i % load}], ${Math.floor(i / load)}u)`;
  const columnTiles = ceilDiv(count, TILE_COLUMNS);
  const panels = columnTiles * places;
  const y = Math.min(panels, MAX_GROUPS);
  const grid: Grid = [outRows / rows, y, ceilDiv(panels, y)];
  const body = /* wgsl */ `
@compute @workgroup_size(${lanes}) fn main(
  @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32) {
  let panel = group.z * groups.y + group.y;
  let place = panel / u.columnTiles;
  if (place >= u.places) { return; }
  let column = (panel - place * u.columnTiles) * ${TILE_COLUMNS / 4} + local;
  var w = place * u.channels * u.weightRow + group.x * ${lanes} + local;
  var t = place * u.inPlace + column;
  ${unroll(rows, (i) => unroll(vectors, (j) => `var c${i}_${j} = vec4f();`))}
  for (var k = 0u; k < u.channels; k += 2) {
    let a0 = weight[w];
    let a1 = weight[w + u.weightRow];
    ${unroll(vectors, (j) => `let b0_${j} = transformed[t + ${j * lanes}];\n    let b1_${j} = transformed[t + u.row + ${j * lanes}];`)}
    w += 2 * u.weightRow;
    t += 2 * u.row;
    ${unroll(
      rows,
      (i) => `{ let t0 = vec4f(${lane('a0', i)}); let t1 = vec4f(${lane('a1', i)});
    ${unroll(vectors, (j) => `c${i}_${j} = fma(t1, b1_${j}, fma(t0, b0_${j}, c${i}_${j}));`)} }`,
    )}
  }
  var to = place * u.outPlace + group.x * ${rows} * u.row + column;
  ${unroll(rows, (i) => `${unroll(vectors, (j) => `products[to + ${j * lanes}] = c${i}_${j};`)}\n  to += u.row;`)}
}`;
  return defineKernel({
    name: `conv2d.products.${rows}x${TILE_COLUMNS}`,
    enable: ['subgroups'],
    bindings: [read('weight', `vec${load}f`), read('transformed', 'vec4f'), write('products', 'vec4f')],
    uniforms: [
      u32('places', places),
      u32('channels', inRows),
      u32('inPlace', inPlace / 4),
      u32('outPlace', outPlace / 4),
      u32('columnTiles', columnTiles),
      u32('row', pitch / 4),
      u32('weightRow', outRows / load),
    ],
    body,
    grid,
  });
}
