// Runs attentions on random inputs.

import { attention } from '../../src/kernels/attention/attention.ts';
import type { AttentionOptions } from '../../src/kernels/attention/attention-options.ts';
import type { Device } from '../../src/kernels/device/device.ts';
import { type RunVariant, randomValues, runRoutine } from './harness.ts';

interface AttentionInputs {
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
}

/** q is so large that some weights of the softmax are almost 0 and others dominate. */
export const attentionInputs = ({ heads, headDim, n, queries, keys }: AttentionOptions): AttentionInputs => ({
  q: randomValues(heads * headDim * n * queries, 1).map((value) => 4 * value),
  k: randomValues(heads * headDim * n * keys, 2),
  v: randomValues(heads * headDim * n * keys, 3),
});

/** Returns y. */
export async function runAttention(
  device: Device,
  options: AttentionOptions,
  { q, k, v }: AttentionInputs,
  { routine = attention(device.capabilities, options), stored }: RunVariant = {},
): Promise<Float32Array> {
  const { heads, headDim, n, queries, keys } = options;
  const qShape = [heads * headDim, n, 1, queries] as const;
  const kShape = [heads * headDim, n, 1, keys] as const;
  const { y } = await runRoutine(device, routine, {
    activations: {
      q: { shape: qShape, values: q },
      k: { shape: kShape, values: k },
      v: { shape: kShape, values: v },
    },
    outputs: { y: qShape },
    stored,
  });
  return y!;
}
