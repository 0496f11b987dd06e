// 3x3 convolution on matrix units as an implicit GEMM: rows are output channels, columns are output pixels,
// and k runs over taps and input channels.
//
// For one row of taps and `tile.depth` channels, a step stages three copies of the pixels: shifted left by
// one, unshifted, and shifted right by one. Units must load from addresses aligned to 16 bytes, so they
// cannot read a shifted tap from a single copy. Pixels are shifted in registers, on pairs of f16 values,
// between one aligned load and three aligned stores. gemm-matrix.ts has the measured rates.

import { ShapeError } from '../../src/errors.ts';
import { defineKernel, type Kernel, read, type Uniform, u32 } from '../../src/kernels/device/kernel.ts';
import type { Packing, WeightDtype } from '../../src/kernels/device/routine.ts';
import { columns, pitch, type Shape } from '../../src/kernels/device/tensor.ts';
import { unroll } from '../../src/kernels/gemm/gemm-spec.ts';
import { MATRIX_MODULE, matrixBody, resultBinding, type Staging, stageA, turns } from './matrix-body.ts';
import { HALVES, type MatrixOut, type MatrixTile, subgroups, tileName } from './matrix-tile.ts';

/** Taps per row of the kernel; a step stages all of them. */
export const TAPS = 3;

/** A convolution with 3x3 taps and padding 1. */
export interface MatrixConv extends MatrixOut {
  readonly x: Shape;
  readonly outChannels: number;
  readonly stride: 1 | 2;
  readonly xType: WeightDtype;
}

/** Returns the shape of the result. */
export const convShape = ({ x, outChannels, stride }: MatrixConv): Shape => [
  outChannels,
  x[1],
  Math.ceil(x[2] / stride),
  Math.ceil(x[3] / stride),
];

/** Returns the output channels of the packed weight, rounded up to whole tiles of rows. */
const packedRows = (outChannels: number, rows: number): number => Math.ceil(outChannels / rows) * rows;

/**
 * Packs a weight [out, in, 3, 3] as f16 [tap][in][out], with out padded with zeros to a multiple of `rows`.
 */
export function packTaps(outChannels: number, channels: number, rows: number): Packing {
  const wide = packedRows(outChannels, rows);
  const each = channels * 9;
  return {
    key: `taps.f16.${outChannels}x${channels}.${rows}`,
    dtype: 'f16',
    bytes: each * wide * 2,
    row: each,
    place(part, from, packed) {
      const to = new Uint16Array(packed);
      for (let i = 0; i < part.length; i++) {
        const at = from + i;
        const [out, rest] = [Math.floor(at / each), at % each];
        to[((rest % 9) * channels + Math.floor(rest / 9)) * wide + out] = part[i]!;
      }
    },
  };
}

/** Returns why a convolution cannot run with a tile, or undefined if it can. */
export function convFault(tile: MatrixTile, conv: MatrixConv): string | undefined {
  const [c, , h, w] = conv.x;
  const y = convShape(conv);
  const { load, unit } = tile;
  if (tile.stage === 'direct' || tile.a !== 'k-major') return 'expected a tile that is staged and k-major';
  if (c % tile.depth !== 0) return `${c} channels are not a multiple of the depth ${tile.depth}`;
  if (h % conv.stride !== 0 || w % (load * conv.stride) !== 0)
    return `a row of ${w} pixels is not whole loads of ${load}`;
  if (columns(y) % unit.N !== 0 || y[0] % unit.M !== 0)
    return `${y[0]} x ${columns(y)} is not a multiple of the unit`;
  return undefined;
}

/** Returns WGSL that joins the low 16 bits of words a and b, and the same for the high 16 bits. */
const low = (a: string, b: string) => `(${a} & 0xffffu) | (${b} << 16u)`;
const high = (a: string, b: string) => `(${a} >> 16u) | (${b} & 0xffff0000u)`;
/** Returns WGSL that joins the high 16 bits of a and the low 16 bits of b. */
const across = (a: string, b: string) => `(${a} >> 16u) | (${b} << 16u)`;

/**
 * Returns the words of the three shifted copies of `load` output pixels, computed from the words `w0, w1,
 * ...` of their input pixels, `left` (whose high 16 bits are the pixel before) and `right` (whose low 16 bits
 * are the pixel after).
 */
function shifted(load: number, stride: 1 | 2): readonly (readonly string[])[] {
  const words = load / 2;
  const w = (i: number): string => (i < 0 ? 'left' : i >= words * stride ? 'right' : `w${i}`);
  const list = (word: (j: number) => string) => Array.from({ length: words }, (_, j) => word(j));
  return stride === 1
    ? [list((j) => across(w(j - 1), w(j))), list(w), list((j) => across(w(j), w(j + 1)))]
    : [
        list((j) => high(w(2 * j - 1), w(2 * j))),
        list((j) => low(w(2 * j), w(2 * j + 1))),
        list((j) => high(w(2 * j), w(2 * j + 1))),
      ];
}

/**
 * Returns a kernel for `MatrixConv`. Its operands are `a x x [bias] c`, where a is the weight packed by
 * `packTaps`.
 */
export function conv2dMatrix(tile: MatrixTile, lanes: number, conv: MatrixConv): Kernel {
  const fault = convFault(tile, conv);
  if (fault) throw new ShapeError(`conv2d on matrix units: ${fault}`);
  const { load, depth } = tile;
  const { x, xType, stride } = conv;
  const y = convShape(conv);
  const threads = lanes * subgroups(tile);
  const wide = tile.columns / load;
  const total = depth * wide;
  const items = Math.ceil(total / threads);
  // If a round covers whole rows of the strip, all items of an invocation are the same pixels of different
  // channels.
  const places = threads % wide === 0 ? 1 : items;
  const placeOf = (s: number): number => (places === 1 ? 0 : s);
  const a = stageA(tile, lanes, TAPS);
  const half = xType === 'f16';
  // A vector of pixels holds `load` f16 values or 4 floats; `loads` vectors cover the pixels of an item.
  const perLoad = half ? load : Math.min(load, 4);
  const loads = (load * stride) / perLoad;
  const vector = half ? HALVES[load] : perLoad === 4 ? 'vec4f' : 'vec2f';
  const lone = half ? 'u32' : 'f32';
  const perLone = half ? 2 : 1;
  const place = (s: number): string => /* wgsl */ `
  let pixel${s} = firstColumn + (index + ${s * threads}u) % ${wide}u * ${load}u;
  let across${s} = pixel${s} % u.width;
  let line${s} = pixel${s} / u.width;
  let top${s} = select(-2i, i32(line${s} % u.height * ${stride}u) - 1i, pixel${s} < u.n);
  let source${s} = (i32(line${s} / u.height * u.xHeight) + top${s}) * i32(u.xWidth) + i32(across${s} * ${stride}u);
  let hasLeft${s} = across${s} > 0u;
  ${stride === 1 ? `let hasRight${s} = across${s} + ${load}u < u.width;` : ''}`;
  const item = (s: number): string => /* wgsl */ `
  let channel${s} = (index + ${s * threads}u) / ${wide}u;
  let toB${s} = channel${s} * ${(tile.columns + tile.pad) / load}u + (index + ${s * threads}u) % ${wide}u;
  ${unroll(loads, (v) => `var x${s}_${v}: ${vector};`)}
  var left${s}: ${lone};
  ${stride === 1 ? `var right${s}: ${lone};` : ''}`;
  // These are branches because a select would wait for the load here, in the middle of the prefetch.
  const fetch = (s: number): string => {
    const p = placeOf(s);
    const clear = `${unroll(loads, (v) => `x${s}_${v} = ${vector}();`)} left${s} = ${lone}(); ${stride === 1 ? `right${s} = ${lone}();` : ''}`;
    return /* wgsl */ `${clear}
      if (u32(top${p} + tapRow) < u.xHeight && top${p} > -2i) {
        let at = (firstChannel + channel${s}) * u.xPitch + u32(source${p} + tapRow * i32(u.xWidth));
        ${unroll(loads, (v) => `x${s}_${v} = x[at / ${perLoad}u + ${v}u];`)}
        if (hasLeft${p}) { left${s} = xLone[(at - 1u) / ${perLone}u]; }
        ${stride === 1 ? `if (hasRight${p}) { right${s} = xLone[(at + ${load}u) / ${perLone}u]; }` : ''}
      }`;
  };
  const copies = shifted(load, stride);
  const word = (s: number, i: number): string => {
    if (half) {
      const perVector = load / 2;
      const name = `x${s}_${Math.floor(i / perVector)}`;
      return perVector === 1 ? name : `${name}[${i % perVector}]`;
    }
    const perVector = perLoad / 2;
    return `pack2x16float(x${s}_${Math.floor(i / perVector)}.${i % perVector === 0 ? 'xy' : 'zw'})`;
  };
  const slab = (depth * (tile.columns + tile.pad)) / load;
  const store = (s: number, offset: string): string => /* wgsl */ `
      let left = ${half ? `left${s}` : `pack2x16float(vec2f(0, left${s}))`};
      ${stride === 1 ? `let right = ${half ? `right${s}` : `pack2x16float(vec2f(right${s}, 0))`};` : ''}
      ${unroll((load / 2) * stride, (i) => `let w${i} = ${word(s, i)};`)}
      ${unroll(TAPS, (t) => `tileB[${offset}toB${s} + ${t * slab}u] = ${load === 2 ? copies[t]![0] : `${HALVES[load]}(${copies[t]!.join(', ')})`};`)}`;
  const staging: Staging = {
    before: /* wgsl */ `${a.before}
  ${unroll(places, place)}
  ${unroll(items, item)}
  var firstChannel = 0u;
  var tapRow = 0i;`,
    fetch: /* wgsl */ `${a.fetch}
    ${turns(total, threads, fetch)}
    tapRow++;
    if (tapRow == ${TAPS}i) { tapRow = 0i; firstChannel += ${depth}u; }
    stripA = u32(tapRow * ${TAPS}i) * u.aTap + firstChannel * u.aPitch;`,
    store: (name) => `${a.store(name)}
    ${turns(total, threads, (s) => store(s, name === '0u' ? '' : `${name} * ${TAPS * slab}u + `))}`,
  };
  const rowsPacked = packedRows(y[0], tile.rows);
  const uniforms: Uniform[] = [
    u32('steps', (TAPS * x[0]) / depth),
    u32('aPitch', rowsPacked / load),
    u32('aTap', (x[0] * rowsPacked) / load),
    u32('cPitch', pitch(y)),
    u32('m', y[0]),
    u32('n', columns(y)),
    u32('width', y[3]),
    u32('height', y[2]),
    u32('xWidth', x[3]),
    u32('xHeight', x[2]),
    u32('xPitch', pitch(x)),
  ];
  const { out, bias = false } = conv;
  return defineKernel({
    name: `conv2d.matrix.${tileName(tile)}.s${stride}.${xType}.${out}${bias ? '.bias' : ''}`,
    ...MATRIX_MODULE,
    bindings: [
      read('a', HALVES[load]),
      read('x', vector),
      read('xLone', lone),
      ...(bias ? [read('bias', 'f32')] : []),
      resultBinding(conv),
    ],
    uniforms,
    body: matrixBody({ tile, lanes, staging, taps: TAPS, guarded: true, out, bias }),
    grid: [rowsPacked / tile.rows, Math.ceil(columns(y) / tile.columns), 1],
  });
}
