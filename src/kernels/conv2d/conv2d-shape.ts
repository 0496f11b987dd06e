// The parts that all convolution kernels share: the geometry, the fused maps of input and output, and the
// loop over taps.

import { ShapeError } from '../../errors.ts';
import { divisor, QUOTIENT } from '../device/indexing.ts';
import { f32, type KernelPart, read, type Uniform, u32 } from '../device/kernel.ts';
import type { WeightDtype } from '../device/routine.ts';
import { columns, pitch, type Shape } from '../device/tensor.ts';
import { type Activation, activationWgsl } from '../elementwise/activation.ts';

export interface Conv2dOptions {
  /** The input [c, n, h, w]. */
  readonly x: Shape;
  readonly outChannels: number;
  readonly kernel: readonly [kh: number, kw: number];
  /** Input pixels from one output to the next, in both directions; default: 1. */
  readonly stride?: number;
  /** Zeros around the input (after the affine map and its activation); default: none. */
  readonly padding?: readonly [top: number, left: number, bottom: number, right: number];
  /** Enlarges the input to twice its size first by repeating each pixel. */
  readonly upsample?: 2;
  readonly bias: boolean;
  /** Makes the input act(a x + b), with a and b per channel and sample, as `groupNormAffine` computes them. */
  readonly affine?: Activation;
  /** Adds a number per output channel and sample to each of its pixels. */
  readonly embedding?: boolean;
  /** Adds a tensor of the output's shape. */
  readonly residual?: boolean;
  /** Multiplies the result at the end. */
  readonly scale?: number;
  readonly weights: WeightDtype;
  /** Keeps weights untransformed in memory; a method that needs them transformed does so in each run. */
  readonly compact?: boolean;
}

/** Options with defaults and derived sizes filled in. */
export interface Geometry {
  readonly x: Shape;
  readonly y: Shape;
  readonly kernel: readonly [kh: number, kw: number];
  readonly stride: number;
  readonly top: number;
  readonly left: number;
  /** 1 or 2. */
  readonly enlarge: number;
  readonly scale: number;
  readonly weights: WeightDtype;
  readonly compact: boolean;
  readonly fused: Fused;
}

/** The fused operands of a convolution. They change a kernel's text, unlike the numbers of the geometry. */
interface Fused {
  readonly affine: Activation | undefined;
  readonly bias: boolean;
  readonly embedding: boolean;
  readonly residual: boolean;
}

/**
 * Returns the height and width of a convolution's output.
 * @throws ShapeError if the padded input is smaller than the kernel.
 */
export function outputSize({
  x,
  kernel: [kh, kw],
  stride = 1,
  padding: [top, left, bottom, right] = [0, 0, 0, 0],
  upsample,
}: Pick<Conv2dOptions, 'x' | 'kernel' | 'stride' | 'padding' | 'upsample'>): readonly [h: number, w: number] {
  const height = x[2] * (upsample ?? 1) + top + bottom;
  const width = x[3] * (upsample ?? 1) + left + right;
  if (height < kh || width < kw)
    throw new ShapeError(
      `conv2d: expected a padded input of at least the kernel's ${kh}x${kw}, got ${height}x${width} (x [${x}])`,
    );
  return [Math.floor((height - kh) / stride) + 1, Math.floor((width - kw) / stride) + 1];
}

/** Checks the options and fills in the rest. @throws ShapeError if a size is not a positive integer. */
export function geometryOf(options: Conv2dOptions): Geometry {
  const { x, outChannels, kernel, stride = 1, padding = [0, 0, 0, 0] } = options;
  const positive = [...x, outChannels, ...kernel, stride];
  if (
    positive.some((v) => !Number.isInteger(v) || v < 1) ||
    padding.some((v) => !Number.isInteger(v) || v < 0)
  )
    throw new ShapeError(
      `conv2d: expected positive integers, got x [${x}], ${outChannels} output channels, kernel [${kernel}], stride ${stride}, padding [${padding}]`,
    );
  const [h, w] = outputSize(options);
  return {
    x,
    y: [outChannels, x[1], h, w],
    kernel,
    stride,
    top: padding[0],
    left: padding[1],
    enlarge: options.upsample ?? 1,
    scale: options.scale ?? 1,
    weights: options.weights,
    compact: options.compact ?? false,
    fused: {
      affine: options.affine,
      bias: options.bias,
      embedding: options.embedding ?? false,
      residual: options.residual ?? false,
    },
  };
}

/** Returns a tag of the fused operands for kernel names. */
export const fusedTag = ({ affine, bias, embedding, residual }: Fused): string =>
  [affine && `affine-${affine}`, bias && 'bias', embedding && 'embedding', residual && 'residual']
    .filter(Boolean)
    .join('+') || 'bare';

/**
 * Returns the fused map of the input: `slopeOf(c, n)`, `offsetOf(c, n)`, `mapped(v, slope, offset)` and its scalar form
 * `mapped1`; identities if nothing is fused.
 */
export function prologue({ x, fused: { affine } }: Geometry): KernelPart {
  if (affine === undefined)
    return {
      bindings: [],
      uniforms: [],
      wgsl: /* wgsl */ `
fn slopeOf(c: u32, n: u32) -> f32 { return 1.0; }
fn offsetOf(c: u32, n: u32) -> f32 { return 0.0; }
fn mapped(v: vec4f, slope: vec4f, offset: vec4f) -> vec4f { return v; }
fn mapped1(v: f32, slope: f32, offset: f32) -> f32 { return v; }
`,
    };
  const samplePitch = pitch([1, x[1], 1, 1]);
  return {
    bindings: [read('affine')],
    uniforms: [u32('affinePitch', samplePitch), u32('offsetRows', x[0] * samplePitch)],
    wgsl: /* wgsl */ `${activationWgsl(affine)}
fn slopeOf(c: u32, n: u32) -> f32 { return affine[c * u.affinePitch + n]; }
fn offsetOf(c: u32, n: u32) -> f32 { return affine[u.offsetRows + c * u.affinePitch + n]; }
fn mapped(v: vec4f, slope: vec4f, offset: vec4f) -> vec4f { return act(v * slope + offset); }
fn mapped1(v: f32, slope: f32, offset: f32) -> f32 { return act1(v * slope + offset); }
`,
  };
}

/**
 * Returns the fused map of outputs that are stored one, two or four at a time. `addend(o, n)` returns the number to add to
 * every pixel of channel o in sample n: bias plus embedding. `finished(sum, i)` applies residual and scale to a sum that
 * includes its addend; i is its index in y.
 */
export function epilogue(
  { y, scale, fused: { bias, embedding, residual } }: Geometry,
  element: 'f32' | 'vec2f' | 'vec4f' = 'vec4f',
): KernelPart {
  const addends = [bias && 'bias[o]', embedding && 'embedding[o * u.embeddingPitch + n]'].filter(Boolean);
  return {
    bindings: [
      ...(bias ? [read('bias')] : []),
      ...(embedding ? [read('embedding')] : []),
      ...(residual ? [read('residual', element)] : []),
    ],
    uniforms: [f32('scale', scale), u32('embeddingPitch', pitch([1, y[1], 1, 1]))],
    wgsl: /* wgsl */ `
fn addend(o: u32, n: u32) -> f32 { return ${addends.join(' + ') || '0.0'}; }
fn finished(sum: ${element}, i: u32) -> ${element} { return (sum${residual ? ' + residual[i]' : ''}) * u.scale; }
`,
  };
}

/** Returns the uniforms of `COLUMN_PLACE`, which locates a column of y in its sample and image. */
export const columnUniforms = (y: Shape): readonly Uniform[] => [
  ...divisor('pixels', y[2] * y[3]),
  ...divisor('width', y[3]),
  u32('columns', columns(y)),
];

/** Returns uniforms that locate a kernel's window in x: sizes, stride, padding, and the shift for enlarged input. */
export const windowUniforms = ({ x, kernel, stride, top, left, enlarge }: Geometry): readonly Uniform[] => [
  u32('channels', x[0]),
  u32('xPitch', pitch(x)),
  u32('xHeight', x[2]),
  u32('xWidth', x[3]),
  u32('shift', enlarge - 1),
  u32('kernelHeight', kernel[0]),
  u32('kernelWidth', kernel[1]),
  u32('stride', stride),
  u32('top', top),
  u32('left', left),
];

/** WGSL of `placeOf(column)`: sample, row and column in the image. Columns after the last are treated as the last. */
export const COLUMN_PLACE = /* wgsl */ `${QUOTIENT}
fn placeOf(column: u32) -> vec3u {
  let p = min(column, u.columns - 1);
  let n = quotient(p, u.pixels, u.pixelsInverse);
  let pixel = p - n * u.pixels;
  let y = quotient(pixel, u.width, u.widthInverse);
  return vec3u(n, y, pixel - y * u.width);
}
`;

/**
 * Returns WGSL that computes, for four columns of y from `first` on, their samples `n` and where their
 * windows begin in x. Requires `COLUMN_PLACE` and `windowUniforms`.
 */
export const windowsOf = (first: string): string => /* wgsl */ `let at0 = placeOf(${first});
  let at1 = placeOf(${first} + 1);
  let at2 = placeOf(${first} + 2);
  let at3 = placeOf(${first} + 3);
  let n = vec4u(at0.x, at1.x, at2.x, at3.x);
  let top = vec4i(vec4u(at0.y, at1.y, at2.y, at3.y) * u.stride) - i32(u.top);
  let left = vec4i(vec4u(at0.z, at1.z, at2.z, at3.z) * u.stride) - i32(u.left);
  let image = n * (u.xHeight * u.xWidth);
  let limit = vec2u(u.xHeight, u.xWidth) << vec2u(u.shift);`;

/**
 * Returns WGSL of a loop over the taps of channel `c`. In `body`, `a` holds a tap's mapped pixels, zero in the padding.
 */
export const eachTap = (
  body: string,
): string => /* wgsl */ `let slope = vec4f(slopeOf(c, n.x), slopeOf(c, n.y), slopeOf(c, n.z), slopeOf(c, n.w));
    let offset = vec4f(offsetOf(c, n.x), offsetOf(c, n.y), offsetOf(c, n.z), offsetOf(c, n.w));
    let plane = image + c * u.xPitch;
    for (var i = 0u; i < u.kernelHeight; i++) {
      let row = vec4u(top + i32(i)); // rows above the image wrap to huge numbers
      let line = plane + (row >> vec4u(u.shift)) * u.xWidth;
      for (var j = 0u; j < u.kernelWidth; j++) {
        let column = vec4u(left + i32(j));
        let inside = (row < vec4u(limit.x)) & (column < vec4u(limit.y));
        let at = select(vec4u(), line + (column >> vec4u(u.shift)), inside);
        let v = vec4f(x[at.x], x[at.y], x[at.z], x[at.w]);
        let a = select(vec4f(), mapped(v, slope, offset), inside);
        ${body}
      }
    }`;
