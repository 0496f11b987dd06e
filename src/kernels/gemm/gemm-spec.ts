// The specification of a batched GEMM, and the parts that its families share: bindings, uniforms, epilogue.

import { ShapeError } from '../../errors.ts';
import {
  type Binding,
  f32,
  type Grid,
  MAX_GROUPS,
  read,
  type Uniform,
  u32,
  write,
} from '../device/kernel.ts';
import type { WeightDtype } from '../device/routine.ts';
import { bucket, type ShapeClass } from '../device/shape-class.ts';
import { type Activation, activationWgsl } from '../elementwise/activation.ts';

/**
 * The layout of a batch of matrices in an operand, in elements; every number is a multiple of 4.
 * Row r of the matrix (o, i) starts at `offset + o·outer + i·inner + r·pitch`.
 */
export interface Matrices {
  readonly pitch: number;
  readonly inner?: number;
  readonly outer?: number;
  readonly offset?: number;
}

/**
 * For every matrix of a batch: c[m][columns] = scale · (act(bias[m] + Σ_k a[k][m] · b[k][columns]) +
 * residual). Both factors are k-major. Every tile sums in the order of k in f32, so an element's bytes do not
 * depend on the number of columns. Columns are read and written in fours: rows of b and c must have room for
 * the columns rounded up to a multiple of 4, and rows of a for m rounded up likewise.
 */
export interface GemmSpec {
  readonly m: number;
  readonly k: number;
  readonly columns: number;
  /** Matrices in the batch, as outer times inner; default: 1 times 1. */
  readonly batch?: readonly [outer: number, inner: number];
  readonly a: Matrices;
  readonly b: Matrices;
  readonly c: Matrices;
  /** The type of a's values; f16 values lie two per u32. */
  readonly aType?: WeightDtype;
  /** Binds `bias` [m rounded up to 4], the same for every matrix of the batch. */
  readonly bias?: boolean;
  /** Binds `residual`, laid out like c. */
  readonly residual?: boolean;
  readonly activation?: Activation;
  readonly scale?: number;
}

/** Rows and columns that one workgroup computes, and the elements of a that one load returns. */
export interface Tile {
  readonly rows: number;
  readonly columns: number;
  readonly load: 1 | 2 | 4;
  /** Matrices of a batch that one workgroup computes (1). If there are several, a tile holds all of their columns. */
  readonly matrices?: number;
}

/** Columns of a GEMM and matrices of a batch from which on more of them do not change which tile is the best. */
const MANY_COLUMNS = 8192;
const MANY_MATRICES = 128;

/** Returns the class of a GEMM for choosing the tile of a kernel. */
export const gemmShape = (
  kernel: string,
  { m, k, columns, batch = [1, 1], aType = 'f32' }: GemmSpec,
): ShapeClass => ({
  kernel,
  types: aType,
  sizes: {
    m: bucket(m),
    k: bucket(k),
    columns: bucket(Math.min(columns, MANY_COLUMNS)),
    batch: bucket(Math.min(batch[0] * batch[1], MANY_MATRICES)),
  },
});

/** A product with every part of an epilogue, whose kernels stand for all (`TiledKernel.example`). */
export const EXAMPLE: GemmSpec = {
  m: 1024,
  k: 1024,
  columns: 1024,
  a: { pitch: 1024 },
  b: { pitch: 1024 },
  c: { pitch: 1024 },
  bias: true,
  residual: true,
};

/** Returns lines of WGSL, one for each index, for the unrolled parts of a kernel. */
export const unroll = (count: number, line: (i: number) => string): string =>
  Array.from({ length: count }, (_, i) => line(i)).join('\n');

const F32_TYPES = { 1: 'f32', 2: 'vec2f', 4: 'vec4f' } as const;
const F16_TYPES = { 2: 'u32', 4: 'vec2u' } as const;

/**
 * Returns binding and load function `loadA(i) -> f32 | vec2f | vec4f` of factor a; i counts units of `load` elements.
 */
function factorA(type: WeightDtype, load: 1 | 2 | 4): { binding: Binding; wgsl: string } {
  const value = F32_TYPES[load];
  if (type === 'f32') {
    return { binding: read('a', value), wgsl: `fn loadA(i: u32) -> ${value} { return a[i]; }` };
  }
  if (load === 1) throw new Error('gemm: f16 factors are loaded in twos or fours');
  const halves = load === 2 ? 'unpack2x16float(h)' : 'vec4f(unpack2x16float(h.x), unpack2x16float(h.y))';
  return {
    binding: read('a', F16_TYPES[load]),
    wgsl: `fn loadA(i: u32) -> ${value} { let h = a[i]; return ${halves}; }`,
  };
}

/** Returns the bindings of a gemm in their order: `a b [bias] [residual] c`. */
export function gemmBindings(spec: GemmSpec, tile: Tile): Binding[] {
  return [
    factorA(spec.aType ?? 'f32', tile.load).binding,
    read('b', 'vec4f'),
    ...(spec.bias ? [read('bias', 'vec4f')] : []),
    ...(spec.residual ? [read('residual', 'vec4f')] : []),
    write('c', 'vec4f'),
  ];
}

/** Returns the panels of a grid: each is the columns of one tile in one matrix, or in several. */
const panelsOf = ({ columns, batch = [1, 1] }: GemmSpec, { columns: each, matrices = 1 }: Tile): number =>
  Math.ceil((Math.ceil(columns / each) * batch[0] * batch[1]) / matrices);

/** Returns uniforms for the dimensions and the operands' layouts: a in units of its load, b and c in vec4s. */
export function gemmUniforms(spec: GemmSpec, tile: Tile): Uniform[] {
  const { m, k, columns, batch = [1, 1], a, b, c, scale = 1 } = spec;
  for (const [name, layout] of Object.entries({ a, b, c }))
    for (const [field, value] of Object.entries(layout))
      if (value % 4 !== 0)
        throw new ShapeError(`gemm: expected ${name}.${field} to be a multiple of 4, got ${value}`);
  const colTiles = Math.ceil(columns / tile.columns);
  const place = (name: string, { pitch, inner = 0, outer = 0, offset = 0 }: Matrices, unit: number) => [
    u32(`${name}Pitch`, pitch / unit),
    u32(`${name}Inner`, inner / unit),
    u32(`${name}Outer`, outer / unit),
    u32(`${name}Offset`, offset / unit),
  ];
  return [
    u32('m', m),
    u32('k', k),
    u32('columns', Math.ceil(columns / 4)),
    u32('colTiles', colTiles),
    u32('panels', panelsOf(spec, tile)),
    u32('batchInner', batch[1]),
    u32('lastMatrix', batch[0] * batch[1] - 1),
    ...place('a', a, tile.load),
    ...place('b', b, 4),
    ...place('c', c, 4),
    f32('scale', scale),
  ];
}

/**
 * Returns a grid of one workgroup per tile. Its x runs over the rows of a panel of columns, so that the panel
 * of b stays in cache.
 */
export function gemmGrid(spec: GemmSpec, tile: Tile): Grid {
  const panels = panelsOf(spec, tile);
  const y = Math.min(panels, MAX_GROUPS);
  return [Math.ceil(spec.m / tile.rows), y, Math.ceil(panels / y)];
}

/**
 * Returns WGSL of `loadA`, `placeOf` (the tile that a workgroup computes) and `finish` (the epilogue after the sum). If a
 * tile has several matrices, `placeOf` also takes which of them it is about; after the last matrix it is the last one.
 */
export function gemmParts(spec: GemmSpec, tile: Tile): string {
  const { activation = 'none', aType = 'f32' } = spec;
  const { matrices = 1 } = tile;
  const active = activation === 'none' ? 'sum' : 'act(sum)';
  return /* wgsl */ `
${factorA(aType, tile.load).wgsl}
${activation === 'none' ? '' : activationWgsl(activation)}
struct Place { row: u32, col: u32, a: u32, b: u32, c: u32, outside: bool }
fn placeOf(group: vec3u, groups: vec3u${matrices > 1 ? ', part: u32' : ''}) -> Place {
  let panel = group.z * groups.y + group.y;
  let matrix = ${matrices > 1 ? `min(${matrices}u * panel + part, u.lastMatrix)` : 'panel / u.colTiles'};
  let outer = matrix / u.batchInner;
  let inner = matrix - outer * u.batchInner;
  return Place(
    group.x * ${tile.rows}u,
    ${matrices > 1 ? '0u' : `(panel - matrix * u.colTiles) * ${tile.columns / 4}u`},
    u.aOffset + outer * u.aOuter + inner * u.aInner,
    u.bOffset + outer * u.bOuter + inner * u.bInner,
    u.cOffset + outer * u.cOuter + inner * u.cInner,
    panel >= u.panels,
  );
}
fn finish(at: u32, sum: vec4f) {
  c[at] = u.scale * (${active}${spec.residual ? ' + residual[at]' : ''});
}
`;
}
