// Convolution, with what usually surrounds it fused in: a group norm's affine map and activation in front;
// bias, embedding, residual and scale behind.

import { broadcastConv2d } from './conv2d-broadcast.ts';
import { directPlain } from './conv2d-direct.ts';
import { type Conv2dOptions, geometryOf } from './conv2d-shape.ts';
import { upsample } from './conv2d-upsample.ts';
import type { Capabilities } from './device.ts';
import { linear } from './linear.ts';
import type { Routine } from './routine.ts';
import { winograd } from './winograd.ts';
import { winogradFused } from './winograd-fused.ts';

export { type Conv2dOptions, outputSize } from './conv2d-shape.ts';

/**
 * y = (weight * act(a x + b) + bias + embedding + residual) scale, where zeros pad the convolution's input after
 * its map and activation.
 *
 * Operands: x [c, n, h, w]; weight [oc, c, kh, kw], packed by the routine; bias [oc]; affine [2c, n, 1, 1], whose
 * rows 0..c-1 are a and c..2c-1 are b; embedding [oc, n, 1, 1]; residual and y [oc, n, oh, ow] with
 * `[oh, ow] = outputSize(options)`.
 * @throws ShapeError where the options make no convolution.
 */
export function conv2d(capabilities: Capabilities, options: Conv2dOptions): Routine {
  const geometry = geometryOf(options);
  const { x, y, kernel, stride, enlarge, top, left, fused } = geometry;
  const centred = y[2] === x[2] * enlarge && y[3] === x[3] * enlarge && top === 1 && left === 1;
  if (kernel[0] === 1 && kernel[1] === 1 && stride === 1 && enlarge === 1 && y[2] === x[2] && y[3] === x[3])
    if (fused.affine === undefined && !fused.embedding) return linear(capabilities, options);
  if (kernel[0] === 3 && kernel[1] === 3 && stride === 1) {
    if (enlarge === 1 && centred && capabilities.family === 'subgroup' && y[0] <= 16)
      return winogradFused(capabilities, geometry);
    if (enlarge === 1 && x[0] >= 8 && y[0] >= 8) return winograd(capabilities, geometry);
    if (enlarge === 2 && centred && x[0] >= 8 && y[0] >= 8) return upsample(capabilities, geometry);
  }
  return capabilities.family === 'subgroup' && y[0] > 4
    ? broadcastConv2d(capabilities, geometry)
    : directPlain(geometry);
}
