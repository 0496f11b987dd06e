// The gradient of a 3x3 convolution with a stride with respect to its input. Without a stride it is a convolution of dy.

import { ShapeError } from '../../errors.ts';
import type { Capabilities } from '../device/device.ts';
import type { Routine, Step } from '../device/routine.ts';
import { type Shape, storageBytes } from '../device/tensor.ts';
import { pad } from '../elementwise/pixel-resize-backward.ts';
import { conv2d } from './conv2d.ts';
import { fitsPhases, phasesInputGradient } from './conv2d-phases.ts';
import { outputSize } from './conv2d-shape.ts';
import type { InputGradientOptions } from './input-gradient-options.ts';

/**
 * Returns a routine for y = (dx + residual) scale, where dx[c, q] is the sum of weight[c, o, 2 - i, 2 - j] dy[o, p] over
 * all p stride + (i, j) - padding = q.
 *
 * Operands: dy [oc, n, oh, ow]; weight [c, oc, 3, 3], that of the transposed convolution, which is rotated by 180
 * degrees, packed by the routine; residual and y [c, n, h, w].
 *
 * Versions on lavapipe (2 cores, Mesa 25.0.7), 3x3 with stride 2, in ms and as the speed relative to the forward pass
 * (bench/backward.ts): 128 channels from 32x32, n = 8; 32 from 14x14, n = 64; 16 from 28x28, n = 64:
 * - Zeros between the pixels of dy, then a convolution of stride 1 (here in the other families): 22.2 (0.59), 5.9 (0.35)
 *   and 9.1 (0.36).
 * - One small convolution per phase, all in one kernel (conv2d-phases.ts): 12.2 (1.09), 1.9 (1.12) and 2.2 (1.28).
 * @throws ShapeError if dy is not the convolution's output, or more than one zero is padded on a side.
 */
export function inputGradient(capabilities: Capabilities, options: InputGradientOptions): Routine {
  const { x, dy, stride, padding, residual = false, scale = 1, weights, compact = false } = options;
  const [oh, ow] = outputSize({ x, kernel: [3, 3], stride, padding });
  if (dy[1] !== x[1] || dy[2] !== oh || dy[3] !== ow)
    throw new ShapeError(
      `inputGradient: expected dy [${dy[0]},${x[1]},${oh},${ow}], the output for x [${x}], got [${dy}]`,
    );
  if (padding.some((size) => size > 1))
    throw new ShapeError(`inputGradient: expected a padding of at most 1, got [${padding}]`);
  if (fitsPhases(capabilities, options)) return phasesInputGradient(capabilities, options);
  const spread: Shape = [dy[0], x[1], x[2], x[3]];
  const spreading = pad(capabilities, {
    x: dy,
    offset: [1 - padding[0], 1 - padding[1]],
    step: stride,
    size: [x[2], x[3]],
  });
  const convolution = conv2d(capabilities, {
    x: spread,
    outChannels: x[0],
    kernel: [3, 3],
    padding: [1, 1, 1, 1],
    bias: false,
    residual,
    scale,
    weights,
    compact,
  });
  return {
    steps: [
      ...renamed(spreading.steps, { x: 'dy', y: 'spread' }),
      ...renamed(convolution.steps, { x: 'spread' }),
    ],
    scratch: { ...convolution.scratch, spread: storageBytes(spread) },
    packing: convolution.packing,
  };
}

/** Returns the steps with other names of operands. */
const renamed = (steps: readonly Step[], names: Readonly<Record<string, string>>): Step[] =>
  steps.map((step) => ({ ...step, operands: step.operands.map((name) => names[name] ?? name) }));
