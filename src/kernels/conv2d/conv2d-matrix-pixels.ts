// How a convolution on matrix units stages its pixels: from an activation in f32 to one copy per tap in f16.
//
// An invocation stages `load` neighbouring output pixels of a channel at a time. If rows of the output consist of whole
// loads, these pixels lie in one row of an image; their taps then overlap and are loaded once, as vectors where rows of
// the input consist of vectors. Otherwise each output pixel has a place and taps of its own.

import { type Binding, read } from '../device/kernel.ts';
import { unroll } from '../gemm/gemm-spec.ts';
import { HALVES, type StagedVectors, stripStart } from '../gemm/matrix-body.ts';
import type { MatrixTile } from '../gemm/matrix-tile.ts';
import type { Geometry } from './conv2d-shape.ts';

/** The staging of a convolution's pixels. */
interface StagedPixels {
  /** Output pixels that an invocation stages at a time. */
  readonly load: 2 | 4 | 8;
  readonly bindings: readonly Binding[];
  /** Tells variants of the text apart. */
  readonly tag: string;
  readonly vectors: StagedVectors;
}

/** A value of the input that a load needs: one pixel, or a vector of four. */
interface Source {
  readonly register: string;
  readonly declare: string;
  /** WGSL that loads it if its column exists. */
  readonly fetch: string;
  readonly clear: string;
  /** WGSL that declares the register's name with the suffix `m`: mapped, and zero outside the image. */
  readonly map: string;
}

const numbers = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** Returns the widest load of at most `most` pixels that divides a row, or undefined for odd rows. */
const loadOf = (width: number, most: 4 | 8): 2 | 4 | 8 | undefined =>
  ([8, 4, 2] as const).find((load) => load <= most && width % load === 0);

/** Returns the staging of a convolution's pixels. */
export function stagedPixels(geometry: Geometry, tile: MatrixTile): StagedPixels {
  const { x, y, kernel, stride, enlarge, left, fused } = geometry;
  const taps = kernel[1];
  const inRow = loadOf(y[3], tile.load);
  const load = inRow ?? 2;
  const wide = tile.columns / load;
  const pitchB = (tile.columns + tile.pad) / load;
  const affine = fused.affine !== undefined;
  // Input pixels between a load's first and last output pixel, without the taps around them.
  const middle = (load * stride) / enlarge;
  const vectors = inRow !== undefined && middle % 4 === 0 && x[3] % 4 === 0 ? middle / 4 : 0;
  /** Output pixels of a load that have a place of their own. */
  const separate = inRow === undefined ? numbers(load) : [0];
  /** In a place of its own, an output pixel of an enlarged image may begin in the middle of an input pixel. */
  const exact = inRow === undefined && enlarge > 1;

  /** The input column of tap j of output pixel e, relative to `across`, which is that of the place. */
  const columnOf = (e: number, j: number): number =>
    Math.floor(((inRow === undefined ? 0 : e * stride) + j - left) / enlarge);
  const keyOf = (e: number, j: number): string => {
    const column = columnOf(e, j);
    if (column >= 0 && column < 4 * vectors) return `v${Math.floor(column / 4)}`;
    return exact ? `j${j}` : `c${column}`;
  };

  /** Returns the values of the input that a load needs from place e. */
  const sourcesOf = (own: string, e: number): Map<string, Source> => {
    const sources = new Map<string, Source>();
    const add = (key: string, type: 'f32' | 'vec4f', inside: string, from: string): void => {
      const register = `${key.replace('-', 'n')}_${own}`;
      const zero = type === 'f32' ? '0.0' : 'vec4f()';
      const mapped =
        type === 'f32'
          ? `mapped1(${register}, slope${own}, offset${own})`
          : `mapped(${register}, vec4f(slope${own}), vec4f(offset${own}))`;
      sources.set(key, {
        register,
        declare: `var ${register}: ${type};`,
        fetch: `${register} = ${zero}; if (${inside}) { ${register} = ${from}; }`,
        clear: `${register} = ${zero};`,
        map: `let ${register}m = ${affine ? `select(${zero}, ${mapped}, exists${own} && ${inside})` : register};`,
      });
    };
    for (const v of numbers(vectors))
      add(
        `v${v}`,
        'vec4f',
        `across${own} + ${4 * v} < i32(u.xWidth)`,
        `x[(at + u32(across${own})) / 4u + ${v}u]`,
      );
    for (const pixel of inRow === undefined ? [e] : numbers(load))
      for (const j of numbers(taps)) {
        const key = keyOf(pixel, j);
        if (sources.has(key)) continue;
        const column = exact
          ? `((wide${own} + ${j - left}) >> 1u)`
          : `(across${own} + ${columnOf(pixel, j)})`;
        add(key, 'f32', `u32(${column}) < u.xWidth`, `pixel[at + u32(${column})]`);
      }
    return sources;
  };
  const each = (id: string, line: (own: string, e: number) => string): string =>
    unroll(separate.length, (e) => line(`${id}_${e}`, e));
  const listed = (own: string, e: number, line: (source: Source) => string): string =>
    [...sourcesOf(own, e).values()].map(line).join('\n        ');

  /** Returns the mapped value of tap j of output pixel e. */
  const value = (id: string, e: number, j: number): string => {
    const own = inRow === undefined ? e : 0;
    const key = keyOf(e, j);
    const { register } = sourcesOf(`${id}_${own}`, own).get(key)!;
    return key.startsWith('v') ? `${register}m[${columnOf(e, j) % 4}]` : `${register}m`;
  };
  const word = (id: string, i: number, j: number) =>
    `bitcast<u32>(vec2<f16>(vec2f(${value(id, 2 * i, j)}, ${value(id, 2 * i + 1, j)})))`;
  const copy = (id: string, j: number): string => {
    const words = numbers(load / 2).map((i) => word(id, i, j));
    return load === 2 ? words[0]! : `${HALVES[load]}(${words.join(', ')})`;
  };

  const slab = tile.depth * pitchB;
  const keys = [...sourcesOf('', 0).keys()];
  return {
    load,
    bindings: [
      ...(vectors > 0 ? [read('x', 'vec4f')] : []),
      ...(keys.some((key) => !key.startsWith('v')) ? [read('pixel', 'f32')] : []),
    ],
    tag: inRow === undefined ? 'gathered' : `rows${load}${vectors > 0 ? '' : '.single'}`,
    vectors: {
      total: tile.depth * wide,
      place: (id, index) => /* wgsl */ `
  let channel${id} = ${index} / ${wide}u;
  let toB${id} = channel${id} * ${pitchB}u + ${index} % ${wide}u;
  ${each(
    id,
    (own, e) => /* wgsl */ `let pixel${own} = firstColumn + ${index} % ${wide}u * ${load}u + ${e}u;
  let line${own} = pixel${own} / u.width;
  let sample${own} = min(pixel${own}, u.columns - 1u) / u.pixels;
  let wide${own} = i32(pixel${own} % u.width * ${stride}u);
  let across${own} = wide${own}${enlarge === 1 ? '' : ` / ${enlarge}`};
  // Above every image for pixels after the last, so that no row of taps exists.
  let above${own} = select(-(1 << 24), i32(line${own} % (u.pixels / u.width) * ${stride}u) - i32(u.top), pixel${own} < u.columns);
  let image${own} = sample${own} * u.xHeight * u.xWidth;
  var exists${own} = false;
  ${affine ? `var slope${own}: f32; var offset${own}: f32;` : ''}
  ${listed(own, e, ({ declare }) => declare)}`,
  )}`,
      // These are branches because a select would wait for the load here, in the middle of the prefetch.
      fetch: (id) =>
        each(
          id,
          (own, e) => /* wgsl */ `
      let tapLine${own} = above${own} + i32(tapRow);
      let c${own} = firstChannel + channel${id};
      exists${own} = u32(tapLine${own}) < u.xHeight * ${enlarge}u && c${own} < u.channels;
      if (exists${own}) {
        let at = c${own} * u.xPitch + image${own} + u32(tapLine${own})${enlarge === 1 ? '' : ` / ${enlarge}u`} * u.xWidth;
        ${affine ? `slope${own} = slopeOf(c${own}, sample${own}); offset${own} = offsetOf(c${own}, sample${own});` : ''}
        ${listed(own, e, ({ fetch }) => fetch)}
      } else {
        ${listed(own, e, ({ clear }) => clear)}
      }`,
        ),
      store: (id, half) => /* wgsl */ `
      ${each(id, (own, e) => listed(own, e, ({ map }) => map))}
      ${unroll(taps, (j) => `tileB[${stripStart(half, taps * slab)}toB${id} + ${j * slab}u] = ${copy(id, j)};`)}`,
    },
  };
}
