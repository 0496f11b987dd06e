// Elementwise operations on whole activations. They process storage in vec4s, including padding, because rows
// start on vec4s and the padding's contents are unspecified. Such a pass runs at the copy bandwidth of the
// device (`npm run bench -- kernels --op add,activation`).

import { ShapeError } from '../../errors.ts';
import type { Capabilities } from '../device/device.ts';
import { pixelTeams, unrolled, walk } from '../device/indexing.ts';
import { f32, type KernelSpec, read, type Uniform, u32, write } from '../device/kernel.ts';
import { type Routine, single, step } from '../device/routine.ts';
import { columns, pitch, type Shape, storageElements } from '../device/tensor.ts';
import { type Activation, activationWgsl, slopeWgsl } from './activation.ts';

/** Returns a routine for `y[i] = expression` over the vec4s of operands of one shape; it may use `u.scale`. */
function pointwise(
  capabilities: Capabilities,
  name: string,
  x: Shape,
  inputs: readonly string[],
  expression: string,
  { functions = '', scale = 1 } = {},
): Routine {
  const { uniforms, grid, main } = walk(capabilities, storageElements(x) / 4);
  return single({
    name,
    bindings: [...inputs.map((input) => read(input, 'vec4f')), write('y', 'vec4f')],
    uniforms: [...uniforms, f32('scale', scale)],
    body: functions + main(`y[i] = ${expression};`),
    grid,
  });
}

/** y = (x1 + x2) scale; operands x1, x2, y [c, n, h, w]. */
export const add = (
  capabilities: Capabilities,
  { x, scale = 1 }: { readonly x: Shape; readonly scale?: number },
): Routine => pointwise(capabilities, 'add', x, ['x1', 'x2'], '(x1[i] + x2[i]) * u.scale', { scale });

/** y = act(x); operands x, y [c, n, h, w]. */
export const activate = (
  capabilities: Capabilities,
  { x, activation }: { readonly x: Shape; readonly activation: Activation },
): Routine =>
  pointwise(capabilities, `activate.${activation}`, x, ['x'], 'act(x[i])', {
    functions: activationWgsl(activation),
  });

/** y = dy act'(x); operands x, dy, y [c, n, h, w]. */
export const activationGradient = (
  capabilities: Capabilities,
  { x, activation }: { readonly x: Shape; readonly activation: Activation },
): Routine =>
  pointwise(capabilities, `activationGradient.${activation}`, x, ['x', 'dy'], 'dy[i] * slope(x[i])', {
    functions: slopeWgsl(activation),
  });

/** y = factor x; operands x, y [c, n, h, w]. */
export const scaled = (
  capabilities: Capabilities,
  { x, factor }: { readonly x: Shape; readonly factor: number },
): Routine => pointwise(capabilities, 'scaled', x, ['x'], 'x[i] * u.scale', { scale: factor });

/** y = x1 x2; operands x1, x2, y [c, n, h, w]. */
export const multiply = (capabilities: Capabilities, { x }: { readonly x: Shape }): Routine =>
  pointwise(capabilities, 'multiply', x, ['x1', 'x2'], 'x1[i] * x2[i]');

/** y = x1 gelu(x2), the gate of a GEGLU; operands x1, x2, y [c, n, h, w] (x1 and x2 may be views of one tensor). */
export const geglu = (capabilities: Capabilities, { x }: { readonly x: Shape }): Routine =>
  pointwise(capabilities, 'geglu', x, ['x1', 'x2'], 'x1[i] * act(x2[i])', {
    functions: activationWgsl('gelu'),
  });

/**
 * Returns a routine for `y[i] = expression(i)` over the pixels of `inputs` [c, n, h, w], in which `a` is the
 * value of `rows` [c, n, 1, 1] for their channel and sample.
 */
function rowwise(
  capabilities: Capabilities,
  name: string,
  x: Shape,
  { inputs, rows }: { readonly inputs: readonly string[]; readonly rows: string },
  expression: (i: string) => string,
  uniforms: readonly Uniform[] = [],
): Routine {
  const { width, element, pixels, team, uniforms: counts, grid, main } = pixelTeams(capabilities, x);
  return single({
    name: `${name}.${element}`,
    bindings: [...inputs.map((input) => read(input, element)), read(rows), write('y', element)],
    uniforms: [
      ...counts,
      u32('pixels', pixels),
      u32('rowPitch', pitch(x) / width),
      u32('samplePitch', pitch([1, x[1], 1, 1])),
      ...uniforms,
    ],
    body: main(/* wgsl */ `let a = ${rows}[row * u.samplePitch + sample];
  let start = row * u.rowPitch + sample * u.pixels;
  let end = start + u.pixels;
  ${unrolled(team, (_, i) => `y[${i}] = ${expression(i)};`)}`),
    grid,
  });
}

interface AddRowsOptions {
  readonly x: Shape;
  /** Factor of x; default: 1. */
  readonly scale?: number;
}

/**
 * y[c, n, p] = x[c, n, p] scale + e[c, n]: adds an embedding to each pixel of a sample.
 * Operands x [c, n, h, w], embedding [c, n, 1, 1], y [c, n, h, w].
 */
export const addRows = (capabilities: Capabilities, { x, scale = 1 }: AddRowsOptions): Routine =>
  rowwise(capabilities, 'addRows', x, { inputs: ['x'], rows: 'embedding' }, (i) => `x[${i}] * u.scale + a`, [
    f32('scale', scale),
  ]);

/**
 * y[c, n, p] = x1[c, n, p] + gate[c, n] x2[c, n, p]: adds a residual branch x2, scaled by its sample's gate.
 * Operands x1, x2 [c, n, h, w], gate [c, n, 1, 1], y [c, n, h, w].
 */
export const gatedAdd = (capabilities: Capabilities, { x }: { readonly x: Shape }): Routine =>
  rowwise(
    capabilities,
    'gatedAdd',
    x,
    { inputs: ['x1', 'x2'], rows: 'gate' },
    (i) => `x1[${i}] + a * x2[${i}]`,
  );

/** y[c, n, p] = x[c, n, p] gate[c, n]; operands x [c, n, h, w], gate [c, n, 1, 1], y [c, n, h, w]. */
export const scaleRows = (capabilities: Capabilities, { x }: { readonly x: Shape }): Routine =>
  rowwise(capabilities, 'scaleRows', x, { inputs: ['x'], rows: 'gate' }, (i) => `x[${i}] * a`);

/**
 * y[c, n, p] = x[c, n, p] + image[c, p]: adds one constant image to all samples.
 * Operands x [c, n, h, w], image [c][h w], y [c, n, h, w].
 */
export function addImage(capabilities: Capabilities, { x }: { readonly x: Shape }): Routine {
  const { width, element, pixels, team, uniforms, grid, main } = pixelTeams(capabilities, x);
  return single({
    name: `addImage.${element}`,
    bindings: [read('x', element), read('image', element), write('y', element)],
    uniforms: [...uniforms, u32('pixels', pixels), u32('rowPitch', pitch(x) / width)],
    body: main(/* wgsl */ `let base = row * u.rowPitch + sample * u.pixels;
  let inImage = row * u.pixels;
  let start = 0u;
  let end = u.pixels;
  ${unrolled(team, (_, i) => `y[base + ${i}] = x[base + ${i}] + image[inImage + ${i}];`)}`),
    grid,
  });
}

interface CopyChannelsOptions {
  readonly x: Shape;
  /** First channel read, of x. */
  readonly from?: number;
  readonly y: Shape;
  /** First channel written, of y. */
  readonly to?: number;
  readonly channels: number;
}

function copyKernel(
  capabilities: Capabilities,
  { x, from = 0, y, to = 0, channels }: CopyChannelsOptions,
): KernelSpec {
  if (columns(x) !== columns(y) || x[1] !== y[1])
    throw new ShapeError(`copyChannels: expected rows of one length, got x [${x}] and y [${y}]`);
  if (from + channels > x[0] || to + channels > y[0])
    throw new ShapeError(
      `copyChannels: expected channels that exist, got ${from}..${from + channels} of ${x[0]} to ${to}..${to + channels} of ${y[0]}`,
    );
  const row = pitch(x) / 4;
  const { uniforms, grid, main } = walk(capabilities, channels * row);
  return {
    name: 'copyChannels',
    bindings: [read('x', 'vec4f'), write('y', 'vec4f')],
    uniforms: [...uniforms, u32('readFrom', from * row), u32('writeTo', to * row)],
    body: main('y[u.writeTo + i] = x[u.readFrom + i];'),
    grid,
  };
}

/** y[to + k] = x[from + k] for k < channels; operands x, y. A view, if possible, does the same without a pass. */
export const copyChannels = (capabilities: Capabilities, options: CopyChannelsOptions): Routine =>
  single(copyKernel(capabilities, options));

/** Concatenation over channels; operands x0, x1, ... [c_i, n, h, w] and y [sum of c_i, n, h, w]. */
export function concat(
  capabilities: Capabilities,
  { inputs }: { readonly inputs: readonly Shape[] },
): Routine {
  const first = inputs[0];
  if (!first) throw new ShapeError('concat: expected at least 1 input, got 0');
  const y: Shape = [inputs.reduce((sum, [c]) => sum + c, 0), first[1], first[2], first[3]];
  let to = 0;
  const steps = inputs.map((x, i) => {
    const copied = step(copyKernel(capabilities, { x, y, to, channels: x[0] }));
    to += x[0];
    return { ...copied, operands: [`x${i}`, 'y'] };
  });
  return { steps, scratch: {}, packing: {} };
}
