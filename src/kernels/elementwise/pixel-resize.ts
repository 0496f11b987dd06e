// Changes the number of pixels without weights: nearest upsampling, average pooling, strided selection, depth to space.

import { ShapeError } from '../../errors.ts';
import type { Capabilities } from '../device/device.ts';
import { divisor, QUOTIENT, walk, walkPixels } from '../device/indexing.ts';
import { ceilDiv, f32, read, u32, write } from '../device/kernel.ts';
import { type Routine, single } from '../device/routine.ts';
import { columns, pitch, type Shape } from '../device/tensor.ts';

/**
 * Doubles height and width. One invocation reads one pixel and writes its 2x2 copies as two vec2s. Every
 * output row starts on an even element, so odd images need no separate path.
 */
function doubled(capabilities: Capabilities, x: Shape, y: Shape): Routine {
  const { uniforms, grid, main } = walk(capabilities, x[0] * columns(x));
  return single({
    name: 'upsampleNearest.double',
    bindings: [read('x'), write('y', 'vec2f')],
    uniforms: [
      ...uniforms,
      ...divisor('columns', columns(x)),
      ...divisor('w', x[3]),
      u32('xPitch', pitch(x)),
      u32('yPitch', pitch(y) / 2),
    ],
    body:
      QUOTIENT +
      main(/* wgsl */ `let channel = quotient(i, u.columns, u.columnsInverse);
  let column = i - channel * u.columns;
  let line = quotient(column, u.w, u.wInverse); // of n h lines; line l becomes lines 2l and 2l + 1
  let v = vec2f(x[channel * u.xPitch + column]);
  let at = channel * u.yPitch + line * u.w + column;
  y[at] = v;
  y[at + u.w] = v;`),
    grid,
  });
}

/** y[row, column] = x[floor(row scaleY), floor(column scaleX)] in each sample; one invocation per element. */
function picked(capabilities: Capabilities, x: Shape, y: Shape, scaleY: number, scaleX: number): Routine {
  const { uniforms, grid, main } = walkPixels(capabilities, y);
  return single({
    name: 'pick',
    bindings: [read('x'), write('y')],
    uniforms: [
      ...uniforms,
      u32('h', x[2]),
      u32('w', x[3]),
      u32('xPitch', pitch(x)),
      u32('yPitch', pitch(y)),
      f32('scaleY', scaleY),
      f32('scaleX', scaleX),
    ],
    body: main(/* wgsl */ `let down = min(u32(f32(row) * u.scaleY), u.h - 1);
  let right = min(u32(f32(across) * u.scaleX), u.w - 1);
  y[channel * u.yPitch + column] = x[channel * u.xPitch + (sample * u.h + down) * u.w + right];`),
    grid,
  });
}

interface UpsampleOptions {
  readonly x: Shape;
  /** Size of the output; default: twice that of x. */
  readonly size?: readonly [h: number, w: number];
}

/**
 * Nearest-neighbour upsampling to twice the size or to a given one. Operands x [c, n, h, w], y [c, n, size]. A given
 * size reads row floor(i h / height) by PyTorch's arithmetic, a product with the f32 ratio.
 */
export function upsampleNearest(capabilities: Capabilities, { x, size }: UpsampleOptions): Routine {
  const [c, n, h, w] = x;
  const [height, width] = size ?? [2 * h, 2 * w];
  const y: Shape = [c, n, height, width];
  if (height === 2 * h && width === 2 * w) return doubled(capabilities, x, y);
  return picked(capabilities, x, y, h / height, w / width);
}

/** y[i, j] = x[stride i, stride j]; operands x [c, n, h, w], y [c, n, ceil(h / stride), ceil(w / stride)]. */
export function pick(
  capabilities: Capabilities,
  { x, stride }: { readonly x: Shape; readonly stride: number },
): Routine {
  const y: Shape = [x[0], x[1], ceilDiv(x[2], stride), ceilDiv(x[3], stride)];
  return picked(capabilities, x, y, stride, stride);
}

/**
 * Average over 2x2 pixels, stride 2; an odd last row or column is dropped, as PyTorch does.
 * Operands x [c, n, h, w], y [c, n, floor(h / 2), floor(w / 2)]. One invocation per element.
 */
export function averagePool2x2(capabilities: Capabilities, { x }: { readonly x: Shape }): Routine {
  const y: Shape = [x[0], x[1], Math.floor(x[2] / 2), Math.floor(x[3] / 2)];
  if (y[2] === 0 || y[3] === 0)
    throw new ShapeError(`averagePool2x2: expected x of at least 2x2, got [${x}]`);
  const { uniforms, grid, main } = walkPixels(capabilities, y);
  return single({
    name: 'averagePool2x2',
    bindings: [read('x'), write('y')],
    uniforms: [...uniforms, u32('h', x[2]), u32('w', x[3]), u32('xPitch', pitch(x)), u32('yPitch', pitch(y))],
    body: main(/* wgsl */ `let at = channel * u.xPitch + (sample * u.h + 2 * row) * u.w + 2 * across;
  y[channel * u.yPitch + column] = 0.25 * ((x[at] + x[at + 1]) + (x[at + u.w] + x[at + u.w + 1]));`),
    grid,
  });
}

/**
 * Distributes channels over blocks of pixels; the output's channel varies fastest (ONNX's mode DCR):
 * y[c, i b + k, j b + l] = x[(k b + l) channels + c, i, j] with b = `block` and channels = x's / b².
 * Operands x [b² channels, n, h, w], y [channels, n, b h, b w]. One invocation per element.
 * @throws ShapeError if the channels do not form whole blocks.
 */
export function depthToSpace(
  capabilities: Capabilities,
  { x, block }: { readonly x: Shape; readonly block: number },
): Routine {
  const channels = x[0] / block ** 2;
  if (!Number.isInteger(channels))
    throw new ShapeError(`depthToSpace: expected a multiple of ${block ** 2} channels, got x [${x}]`);
  const y: Shape = [channels, x[1], block * x[2], block * x[3]];
  const { uniforms, grid, main } = walkPixels(capabilities, y);
  return single({
    name: 'depthToSpace',
    bindings: [read('x'), write('y')],
    uniforms: [
      ...uniforms,
      ...divisor('block', block),
      u32('channels', channels),
      u32('w', x[3]),
      u32('xPitch', pitch(x)),
      u32('yPitch', pitch(y)),
    ],
    body: main(/* wgsl */ `let xLine = quotient(line, u.block, u.blockInverse); // blocks do not cross samples
  let xAcross = quotient(across, u.block, u.blockInverse);
  let place = (line - xLine * u.block) * u.block + across - xAcross * u.block;
  y[channel * u.yPitch + column] = x[(place * u.channels + channel) * u.xPitch + xLine * u.w + xAcross];`),
    grid,
  });
}
