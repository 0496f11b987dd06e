// Runs convolutions on random inputs.

import { type Conv2dOptions, conv2d, outputSize } from '../../src/kernels/conv2d/conv2d.ts';
import type { Device } from '../../src/kernels/device/device.ts';
import type { ConvolutionInputs } from '../reference/conv2d.ts';
import { type Activation, type RunVariant, randomValues, runRoutine } from './harness.ts';

export function conv2dInputs({ x, outChannels, kernel, ...options }: Conv2dOptions): ConvolutionInputs {
  const [c, n, h, w] = x;
  const [oh, ow] = outputSize({ x, kernel, ...options });
  return {
    x: randomValues(c * n * h * w, 1),
    weight: randomValues(outChannels * c * kernel[0] * kernel[1], 2),
    ...(options.bias ? { bias: randomValues(outChannels, 3) } : {}),
    ...(options.affine !== undefined ? { affine: randomValues(n * 2 * c, 4) } : {}),
    ...(options.embedding ? { embedding: randomValues(n * outChannels, 5) } : {}),
    ...(options.residual ? { residual: randomValues(n * outChannels * oh * ow, 6) } : {}),
  };
}

/** Returns y. */
export async function runConv2d(
  device: Device,
  options: Conv2dOptions,
  inputs: ConvolutionInputs,
  { routine = conv2d(device.capabilities, options), stored }: RunVariant = {},
): Promise<Float32Array> {
  const { x, outChannels } = options;
  const [c, n] = x;
  const [oh, ow] = outputSize(options);
  const activations: Record<string, Activation> = { x: { shape: x, values: inputs.x } };
  if (inputs.affine) activations.affine = { shape: [2 * c, n, 1, 1], values: inputs.affine };
  if (inputs.embedding) activations.embedding = { shape: [outChannels, n, 1, 1], values: inputs.embedding };
  if (inputs.residual) activations.residual = { shape: [outChannels, n, oh, ow], values: inputs.residual };
  const constants: Record<string, Float32Array<ArrayBuffer>> = { weight: Float32Array.from(inputs.weight) };
  if (inputs.bias) constants.bias = Float32Array.from(inputs.bias);
  const outputs = { y: [outChannels, n, oh, ow] as const };
  const { y } = await runRoutine(device, routine, {
    activations,
    constants,
    outputs,
    stored,
  });
  return y!;
}
