// The gradients of operations that change the number of pixels: copies of a pixel are summed, dropped pixels get zero.

import { ShapeError } from '../../errors.ts';
import type { Capabilities } from '../device/device.ts';
import { divisor, QUOTIENT, walk, walkPixels } from '../device/indexing.ts';
import { f32, i32, read, u32, write } from '../device/kernel.ts';
import { type Routine, single } from '../device/routine.ts';
import { columns, pitch, type Shape } from '../device/tensor.ts';

/** y[i, j] = the sum of dy's 2x2 pixels at (2i, 2j), read as two vec2s, which start on even elements for every size. */
function halved(capabilities: Capabilities, dy: Shape, y: Shape): Routine {
  const { uniforms, grid, main } = walk(capabilities, y[0] * columns(y));
  return single({
    name: 'upsampleGradient.double',
    bindings: [read('dy', 'vec2f'), write('y')],
    uniforms: [
      ...uniforms,
      ...divisor('columns', columns(y)),
      ...divisor('w', y[3]),
      u32('dyPitch', pitch(dy) / 2),
      u32('yPitch', pitch(y)),
    ],
    body:
      QUOTIENT +
      main(/* wgsl */ `let channel = quotient(i, u.columns, u.columnsInverse);
  let column = i - channel * u.columns;
  let line = quotient(column, u.w, u.wInverse); // of n h lines; lines 2l and 2l + 1 of dy are its own
  let at = channel * u.dyPitch + line * u.w + column;
  y[channel * u.yPitch + column] = dot(dy[at] + dy[at + u.w], vec2f(1));`),
    grid,
  });
}

/** y[i, j] = the sum over the pixels of dy for which `picked` read (i, j); the same arithmetic finds them. */
function gathered(capabilities: Capabilities, dy: Shape, y: Shape): Routine {
  const { uniforms, grid, main } = walkPixels(capabilities, y);
  return single({
    name: 'upsampleGradient',
    bindings: [read('dy'), write('y')],
    uniforms: [
      ...uniforms,
      u32('dyHeight', dy[2]),
      u32('dyWidth', dy[3]),
      f32('scaleY', y[2] / dy[2]),
      f32('scaleX', y[3] / dy[3]),
      u32('dyPitch', pitch(dy)),
      u32('yPitch', pitch(y)),
    ],
    body: /* wgsl */ `
/**
 * Returns the first of \`count\` pixels that reads pixel \`source\` or a later one; the estimate may be off
 * by one.
 */
fn firstOf(source: u32, scale: f32, count: u32) -> u32 {
  var k = min(u32(f32(source) / scale), count);
  if (k > 0) { k--; }
  while (k < count && u32(f32(k) * scale) < source) { k++; }
  return k;
}
${main(/* wgsl */ `let top = firstOf(row, u.scaleY, u.dyHeight);
  let left = firstOf(across, u.scaleX, u.dyWidth);
  // Pixels that would read past the last one read the last one.
  let bottom = select(firstOf(row + 1, u.scaleY, u.dyHeight), u.dyHeight, row + 1 == u.height);
  let right = select(firstOf(across + 1, u.scaleX, u.dyWidth), u.dyWidth, across + 1 == u.width);
  var sum = 0.0;
  for (var k = top; k < bottom; k++) {
    let start = channel * u.dyPitch + (sample * u.dyHeight + k) * u.dyWidth;
    var inRow = 0.0;
    for (var l = left; l < right; l++) { inRow += dy[start + l]; }
    sum += inRow;
  }
  y[channel * u.yPitch + column] = sum;`)}`,
    grid,
  });
}

/**
 * The gradient of `upsampleNearest`: y[i, j] = the sum of dy over the copies of pixel (i, j).
 * Operands dy [c, n, height, width], y [c, n, size].
 */
export function upsampleGradient(
  capabilities: Capabilities,
  { dy, size: [h, w] }: { readonly dy: Shape; readonly size: readonly [h: number, w: number] },
): Routine {
  const y: Shape = [dy[0], dy[1], h, w];
  return (dy[2] === 2 * h && dy[3] === 2 * w ? halved : gathered)(capabilities, dy, y);
}

/**
 * The gradient of `averagePool2x2`: a quarter of dy at each pixel of its block, zero in a dropped row or
 * column.
 * Operands dy [c, n, floor(h / 2), floor(w / 2)], y [c, n, h, w] with [h, w] = `size`.
 */
export function averagePoolGradient(
  capabilities: Capabilities,
  { dy, size: [h, w] }: { readonly dy: Shape; readonly size: readonly [h: number, w: number] },
): Routine {
  const y: Shape = [dy[0], dy[1], h, w];
  const { uniforms, grid, main } = walkPixels(capabilities, y);
  return single({
    name: 'averagePoolGradient',
    bindings: [read('dy'), write('y')],
    uniforms: [
      ...uniforms,
      u32('dyHeight', dy[2]),
      u32('dyWidth', dy[3]),
      u32('dyPitch', pitch(dy)),
      u32('yPitch', pitch(y)),
    ],
    body: main(/* wgsl */ `let inside = row < 2 * u.dyHeight && across < 2 * u.dyWidth;
  let at = channel * u.dyPitch + (sample * u.dyHeight + row / 2) * u.dyWidth + across / 2;
  y[channel * u.yPitch + column] = select(0, 0.25 * dy[select(0, at, inside)], inside);`),
    grid,
  });
}

/**
 * The inverse of `depthToSpace`: y[(k b + l) channels + c, i, j] = x[c, i b + k, j b + l] with b = `block`.
 * Operands x [channels, n, b h, b w], y [b² channels, n, h, w].
 * @throws ShapeError if the pixels do not form whole blocks.
 */
export function spaceToDepth(
  capabilities: Capabilities,
  { x, block }: { readonly x: Shape; readonly block: number },
): Routine {
  const [c, n, h, w] = x;
  if (h % block !== 0 || w % block !== 0)
    throw new ShapeError(`spaceToDepth: expected whole blocks of ${block}x${block}, got x [${x}]`);
  const y: Shape = [c * block ** 2, n, h / block, w / block];
  const { uniforms, grid, main } = walkPixels(capabilities, y);
  return single({
    name: 'spaceToDepth',
    bindings: [read('x'), write('y')],
    uniforms: [
      ...uniforms,
      ...divisor('channels', c),
      ...divisor('block', block),
      u32('xWidth', w),
      u32('xPitch', pitch(x)),
      u32('yPitch', pitch(y)),
    ],
    body: main(/* wgsl */ `let place = quotient(channel, u.channels, u.channelsInverse);
  let k = quotient(place, u.block, u.blockInverse);
  let xLine = (sample * u.height + row) * u.block + k;
  let xAcross = across * u.block + place - k * u.block;
  y[channel * u.yPitch + column] = x[(channel - place * u.channels) * u.xPitch + xLine * u.xWidth + xAcross];`),
    grid,
  });
}

interface PadOptions {
  readonly x: Shape;
  /** The position of x's first row and column in y; negative if they are cut off. */
  readonly offset: readonly [top: number, left: number];
  /** Distance in y between neighbouring pixels of x, with zeros in between; default: 1. */
  readonly step?: number;
  /** y's height and width; pixels that x does not cover are zero, and pixels of x outside y are cut off. */
  readonly size: readonly [h: number, w: number];
}

/** y[i step + top, j step + left] = x[i, j], zero elsewhere; operands x [c, n, h, w], y [c, n, size]. */
export function pad(
  capabilities: Capabilities,
  { x, offset: [top, left], step = 1, size }: PadOptions,
): Routine {
  const y: Shape = [x[0], x[1], ...size];
  const { uniforms, grid, main } = walkPixels(capabilities, y);
  return single({
    name: 'pad',
    bindings: [read('x'), write('y')],
    uniforms: [
      ...uniforms,
      ...divisor('step', step),
      i32('top', top),
      i32('left', left),
      i32('xHeight', x[2]),
      i32('xWidth', x[3]),
      u32('xPitch', pitch(x)),
      u32('yPitch', pitch(y)),
    ],
    body: main(/* wgsl */ `let down = i32(row) - u.top;
  let right = i32(across) - u.left;
  let xRow = i32(quotient(u32(max(down, 0)), u.step, u.stepInverse));
  let xAcross = i32(quotient(u32(max(right, 0)), u.step, u.stepInverse));
  let step = i32(u.step);
  let inside = xRow * step == down && xAcross * step == right && xRow < u.xHeight && xAcross < u.xWidth;
  let at = channel * u.xPitch + u32((i32(sample) * u.xHeight + xRow) * u.xWidth + xAcross);
  y[channel * u.yPitch + column] = select(0, x[select(0, at, inside)], inside);`),
    grid,
  });
}

/**
 * The gradient of a channel slice: copies x to the channels from `first` on and sets the others to zero.
 * Operands x [c, n, h, w], y [channels, n, h, w].
 */
export function padChannels(
  capabilities: Capabilities,
  { x, first, channels }: { readonly x: Shape; readonly first: number; readonly channels: number },
): Routine {
  if (first < 0 || first + x[0] > channels)
    throw new ShapeError(
      `padChannels: expected channels within 0 to ${channels}, got ${first} to ${first + x[0]} (x [${x}])`,
    );
  const row = pitch(x) / 4;
  const { uniforms, grid, main } = walk(capabilities, channels * row);
  return single({
    name: 'padChannels',
    bindings: [read('x', 'vec4f'), write('y', 'vec4f')],
    uniforms: [...uniforms, u32('first', first * row), u32('given', x[0] * row)],
    body: main(/* wgsl */ `let at = i - u.first; // channels before x wrap to a huge number
  let inside = at < u.given;
  y[i] = select(vec4f(), x[select(0, at, inside)], inside);`),
    grid,
  });
}
