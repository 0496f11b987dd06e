// Elementwise operations on whole activations: they run over storage in vec4s, padding included, because rows
// start on vec4s and the padding may hold anything. One invocation writes one vec4; such a pass runs at the
// copy bandwidth of the device (bench/elementwise.ts).

import { type Activation, activationWgsl } from './activation.ts';
import type { Capabilities } from './device.ts';
import { ShapeError } from './errors.ts';
import { divisor, ELEMENTWISE_MAIN, LANES, LINEAR_INDEX, QUOTIENT } from './indexing.ts';
import { ceilDiv, defineKernel, f32, type Kernel, linearGrid, read, u32, write } from './kernel.ts';
import { type Routine, single } from './routine.ts';
import { columns, pitch, type Shape, storageElements } from './tensor.ts';

/** A kernel `y[i] = expression` over the vec4s of operands of one shape; `u.scale` is at hand. */
function pointwise(
  name: string,
  x: Shape,
  inputs: readonly string[],
  expression: string,
  scale = 1,
): Routine {
  const count = storageElements(x) / 4;
  const kernel = defineKernel({
    name,
    bindings: [...inputs.map((input) => read(input, 'vec4f')), write('y', 'vec4f')],
    uniforms: [u32('count', count), f32('scale', scale)],
    body: /* wgsl */ `${LINEAR_INDEX}${expression}
${ELEMENTWISE_MAIN} {
  let i = linearIndex(group, groups, local);
  if (i >= u.count) { return; }
  y[i] = value(i);
}`,
    grid: linearGrid(ceilDiv(count, LANES)),
  });
  return single(kernel, [...inputs, 'y']);
}

/** y = (x1 + x2) scale; operands x1, x2, y [c, n, h, w]. */
export function add(
  _: Capabilities,
  { x, scale = 1 }: { readonly x: Shape; readonly scale?: number },
): Routine {
  const value = 'fn value(i: u32) -> vec4f { return (x1[i] + x2[i]) * u.scale; }';
  return pointwise('add.plain', x, ['x1', 'x2'], value, scale);
}

/** y = act(x); operands x, y [c, n, h, w]. */
export function activate(
  _: Capabilities,
  { x, activation }: { readonly x: Shape; readonly activation: Activation },
): Routine {
  const value = `${activationWgsl(activation)}fn value(i: u32) -> vec4f { return act(x[i]); }`;
  return pointwise(`activate.plain.${activation}`, x, ['x'], value);
}

/** y = x1 gelu(x2), the gate of a GEGLU; operands x1, x2, y [c, n, h, w] (x1 and x2 may be views of one tensor). */
export function geglu(_: Capabilities, { x }: { readonly x: Shape }): Routine {
  const value = `${activationWgsl('gelu')}fn value(i: u32) -> vec4f { return x1[i] * act(x2[i]); }`;
  return pointwise('geglu.plain', x, ['x1', 'x2'], value);
}

export interface AddRowsOptions {
  readonly x: Shape;
  /** x is multiplied by this first. */
  readonly scale?: number;
}

/**
 * y[c, n, p] = x[c, n, p] scale + e[c, n]: an embedding added to each pixel of a sample.
 * Operands x [c, n, h, w], embedding [c, n, 1, 1], y [c, n, h, w].
 */
export function addRows(_: Capabilities, { x, scale = 1 }: AddRowsOptions): Routine {
  const count = storageElements(x) / 4;
  const kernel = defineKernel({
    name: 'addRows.plain',
    bindings: [read('x', 'vec4f'), read('embedding'), write('y', 'vec4f')],
    uniforms: [
      u32('count', count),
      f32('scale', scale),
      ...divisor('rowVectors', pitch(x) / 4),
      ...divisor('pixels', x[2] * x[3]),
      u32('samplePitch', pitch([x[0], x[1], 1, 1])),
      u32('lastSample', x[1] - 1),
    ],
    body: /* wgsl */ `${LINEAR_INDEX}${QUOTIENT}${ROW_OF_VECTOR}
${ELEMENTWISE_MAIN} {
  let i = linearIndex(group, groups, local);
  if (i >= u.count) { return; }
  let at = placeOf(i);
  var e = vec4f(embedding[at.first]);
  if (at.first != at.last) { // a vec4 that spans samples: pixels is no multiple of 4
    for (var k = 1u; k < 4u; k++) { e[k] = embedding[sampleOf(at, k)]; }
  }
  y[i] = x[i] * u.scale + e;
}`,
    grid: linearGrid(ceilDiv(count, LANES)),
  });
  return single(kernel, ['x', 'embedding', 'y']);
}

/**
 * WGSL for vec4 `i` of an activation and the [c, n] rows that its four columns belong to.
 * Wants the uniforms rowVectors, pixels (both as divisors), samplePitch and lastSample.
 * `first` and `last` are the places of the vec4's first and last column in rows of `samplePitch`; between them
 * `sampleOf(place, k)` is that of column k. Columns of the padding are given the last sample's.
 */
export const ROW_OF_VECTOR = /* wgsl */ `
struct Place { first: u32, last: u32, base: u32, column: u32 }
fn placeOf(i: u32) -> Place {
  let row = quotient(i, u.rowVectors, u.rowVectorsInverse);
  let column = 4 * (i - row * u.rowVectors);
  let base = row * u.samplePitch;
  let first = min(quotient(column, u.pixels, u.pixelsInverse), u.lastSample);
  let last = min(quotient(column + 3, u.pixels, u.pixelsInverse), u.lastSample);
  return Place(base + first, base + last, base, column);
}
fn sampleOf(at: Place, k: u32) -> u32 {
  return at.base + min(quotient(at.column + k, u.pixels, u.pixelsInverse), u.lastSample);
}
`;

export interface CopyChannelsOptions {
  readonly x: Shape;
  /** First channel read, of x. */
  readonly from?: number;
  readonly y: Shape;
  /** First channel written, of y. */
  readonly to?: number;
  readonly channels: number;
}

function copyKernel({ x, from = 0, y, to = 0, channels }: CopyChannelsOptions): Kernel {
  if (columns(x) !== columns(y) || x[1] !== y[1])
    throw new ShapeError(`copyChannels: rows of x [${x}] do not fit rows of y [${y}]`);
  if (from + channels > x[0] || to + channels > y[0])
    throw new ShapeError(
      `copyChannels: channels ${from}..${from + channels} of ${x[0]} to ${to}..${to + channels} of ${y[0]}`,
    );
  const row = pitch(x) / 4;
  return defineKernel({
    name: 'copyChannels.plain',
    bindings: [read('x', 'vec4f'), write('y', 'vec4f')],
    uniforms: [u32('count', channels * row), u32('source', from * row), u32('goal', to * row)],
    body: /* wgsl */ `${LINEAR_INDEX}
${ELEMENTWISE_MAIN} {
  let i = linearIndex(group, groups, local);
  if (i < u.count) { y[u.goal + i] = x[u.source + i]; }
}`,
    grid: linearGrid(ceilDiv(channels * row, LANES)),
  });
}

/** y[to + k] = x[from + k] for k < channels; operands x, y. A view does the same without the pass, where one can. */
export const copyChannels = (_: Capabilities, options: CopyChannelsOptions): Routine =>
  single(copyKernel(options), ['x', 'y']);

/** Concatenation over channels; operands x0, x1, ... [c_i, n, h, w] and y [sum of c_i, n, h, w]. */
export function concat(_: Capabilities, { inputs }: { readonly inputs: readonly Shape[] }): Routine {
  const first = inputs[0];
  if (!first) throw new ShapeError('concat: got 0 inputs, wants at least 1');
  const y: Shape = [inputs.reduce((sum, [c]) => sum + c, 0), first[1], first[2], first[3]];
  let to = 0;
  const steps = inputs.map((x, i) => {
    const kernel = copyKernel({ x, y, to, channels: x[0] });
    to += x[0];
    return { kernel, operands: [`x${i}`, 'y'] };
  });
  return { steps, scratch: {}, packing: {} };
}
