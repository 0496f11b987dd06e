// The numbers of an adapter's tensors.

import { ModelError } from '../../errors.ts';
import { bf16ToF32, f16ToF32 } from '../../kernels/device/half.ts';
import { product } from '../../numbers.ts';
import { quote } from '../files/json.ts';
import type { VirtualTensor } from '../files/virtual-safetensors.ts';

/** Reads a tensor's numbers. @throws ModelError naming the tensor unless it is F32, F16 or BF16 and all are finite. */
export async function readValues(
  from: VirtualTensor,
  name: string,
  path: string,
): Promise<Float32Array<ArrayBuffer>> {
  const { dtype, shape } = from;
  const tensor = `${path}: tensor ${quote(name)}`;
  const values = new Float32Array(product(shape));
  if (dtype === 'F32') await from.read(0, new Uint8Array(values.buffer));
  else if (dtype === 'F16' || dtype === 'BF16') {
    const halves = new Uint16Array(values.length);
    await from.read(0, new Uint8Array(halves.buffer));
    (dtype === 'F16' ? f16ToF32 : bf16ToF32)(halves, values);
  } else throw new ModelError(`${tensor}: expected F32, F16 or BF16, got ${dtype}`);
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) throw new ModelError(`${tensor}: expected finite numbers, got ${values[at]} at ${at}`);
  return values;
}
