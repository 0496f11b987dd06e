// Runs dense layers on random inputs.

import type { Device } from '../../src/kernels/device/device.ts';
import { type LinearOptions, linear } from '../../src/kernels/gemm/linear.ts';
import type { LinearInputs } from '../reference/linear.ts';
import { type Activation, type RunVariant, randomValues, runRoutine } from './harness.ts';

export function linearInputs({ x: [c, n, h, w], outChannels, bias, residual }: LinearOptions): LinearInputs {
  return {
    x: randomValues(c * n * h * w, 1),
    weight: randomValues(outChannels * c, 2),
    ...(bias ? { bias: randomValues(outChannels, 3) } : {}),
    ...(residual ? { residual: randomValues(outChannels * n * h * w, 4) } : {}),
  };
}

/** Returns y. */
export async function runLinear(
  device: Device,
  options: LinearOptions,
  inputs: LinearInputs,
  { routine = linear(device.capabilities, options), stored }: RunVariant = {},
): Promise<Float32Array> {
  const [, n, h, w] = options.x;
  const yShape = [options.outChannels, n, h, w] as const;
  const activations: Record<string, Activation> = { x: { shape: options.x, values: inputs.x } };
  if (inputs.residual) activations.residual = { shape: yShape, values: inputs.residual };
  const constants: Record<string, Float32Array<ArrayBuffer>> = { weight: Float32Array.from(inputs.weight) };
  if (inputs.bias) constants.bias = Float32Array.from(inputs.bias);
  const outputs = { y: yShape };
  const { y } = await runRoutine(device, routine, {
    activations,
    constants,
    outputs,
    stored,
  });
  return y!;
}
