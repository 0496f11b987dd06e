// Dense layers and 1x1 convolutions, computed as one GEMM over all samples and pixels.

import { ShapeError } from '../../errors.ts';
import type { Capabilities } from '../device/device.ts';
import { withoutMatrix } from '../device/families.ts';
import type { Routine, WeightDtype } from '../device/routine.ts';
import { columns, pitch, type Shape } from '../device/tensor.ts';
import type { Activation } from '../elementwise/activation.ts';
import { gemm, packedPitch, packMatrix, packVector } from './gemm.ts';

export interface LinearOptions {
  /** The input [in, n, h, w]. */
  readonly x: Shape;
  readonly outChannels: number;
  readonly bias: boolean;
  /** Applied to the sum with its bias, before the residual. */
  readonly activation?: Activation;
  /** Adds a tensor of the output's shape. */
  readonly residual?: boolean;
  /** Multiplies the result at the end. */
  readonly scale?: number;
  readonly weights: WeightDtype;
}

/**
 * Returns a routine for y = scale · (act(weight x + bias) + residual) at every sample and pixel.
 *
 * Operands: x [in, n, h, w]; weight [out, in] and bias [out], both packed by the routine; residual and
 * y [out, n, h, w].
 * @throws ShapeError if a dimension is not positive.
 */
export function linear(capabilities: Capabilities, options: LinearOptions): Routine {
  const { x, outChannels, bias, activation = 'none', residual = false, scale = 1, weights } = options;
  if ([...x, outChannels].some((v) => !Number.isInteger(v) || v < 1))
    throw new ShapeError(
      `linear: expected positive integers, got x [${x}] and ${outChannels} output channels`,
    );
  // Vectors, such as embeddings of levels, are few and multiplied in f32.
  const products = x[2] * x[3] === 1 ? withoutMatrix(capabilities) : capabilities;
  const kernel = gemm(products, {
    m: outChannels,
    k: x[0],
    columns: columns(x),
    a: { pitch: packedPitch(outChannels) },
    b: { pitch: pitch(x) },
    c: { pitch: pitch(x) },
    aType: weights,
    bias,
    residual,
    activation,
    scale,
  });
  const operands = ['weight', 'x', ...(bias ? ['bias'] : []), ...(residual ? ['residual'] : []), 'y'];
  return {
    steps: [{ kernel, operands }],
    scratch: {},
    packing: {
      weight: packMatrix(outChannels, x[0], weights),
      ...(bias ? { bias: packVector(outChannels) } : {}),
    },
  };
}
