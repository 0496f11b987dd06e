// The matrix product that every dense layer uses: batched, both factors k-major, with an epilogue.
//
// Versions, each with its idea and its rate. lavapipe: 2 cores, Mesa 25.0.7, matrices of 512 and 1024, in GFLOP/s
// (prototypes; gemm-subgroup.ts lists its own steps). H200: 4096 x 4096 x 4096, in TFLOP/s
// (bench/results/nvidia-h200.json and nvidia-h200-tiles.json); its peak is 47.4 for f32 products in registers.
// - 8 x 8 results per invocation, in registers: 35 on lavapipe (`plain` here).
// - 16 x 16 results per invocation: 54 on lavapipe.
// - Tiles of 128 x 128 x 16 in workgroup memory: 28 on lavapipe, where a barrier suspends and resumes a
//   subgroup. On the H200 64 x 128 x 8 reaches 33.7, and 128 x 64 x 16 (`tile` here, whose sizes are data) 45.2.
// - Operands broadcast from lane to lane: 85 on lavapipe (`subgroup` here).
// - Matrix units with f16 factors and f32 sums (`matrix` here): 214 on the H200, and 275 without Dawn's bounds checks.

import { ShapeError } from '../../errors.ts';
import type { Capabilities } from '../device/device.ts';
import type { Family } from '../device/families.ts';
import { type Kernel, pad4 } from '../device/kernel.ts';
import { transposed } from '../device/packing.ts';
import type { Packing, WeightDtype } from '../device/routine.ts';
import { tunedKernel } from '../device/tuning.ts';
import { MATRIX_GEMM } from './gemm-matrix.ts';
import { gemmPlain } from './gemm-plain.ts';
import type { GemmSpec } from './gemm-spec.ts';
import { SUBGROUP_GEMM } from './gemm-subgroup.ts';
import { TILE_GEMM } from './gemm-tile.ts';

export type { GemmSpec, Matrices } from './gemm-spec.ts';

const GEMMS: Readonly<Record<Family, (capabilities: Capabilities, spec: GemmSpec) => Kernel>> = {
  subgroup: (capabilities, spec) => tunedKernel(SUBGROUP_GEMM, capabilities, spec),
  tile: (capabilities, spec) => tunedKernel(TILE_GEMM, capabilities, spec),
  matrix: (capabilities, spec) => tunedKernel(MATRIX_GEMM, capabilities, spec),
  plain: (_, spec) => gemmPlain(spec),
};

/**
 * Returns a kernel for c = scale · (act(bias + aᵀ b) + residual); see `GemmSpec`. Its operands are `a b [bias]
 * [residual] c`, in this order. The tile may depend on the number of columns, but an element's bytes do not, because
 * every tile sums in the order of k.
 * @throws ShapeError if a pitch, stride or offset is not a multiple of 4, or a dimension is not positive.
 */
export function gemm(capabilities: Capabilities, spec: GemmSpec): Kernel {
  for (const name of ['m', 'k', 'columns'] as const)
    if (!(spec[name] > 0)) throw new ShapeError(`gemm: expected ${name} of at least 1, got ${spec[name]}`);
  return GEMMS[capabilities.family](capabilities, spec);
}

/** Returns the distance between rows of a weight packed by `packMatrix`, in elements. */
export const packedPitch = (out: number): number => pad4(out);

/**
 * Packs a weight [out, in] as factor a, k-major: `in` rows of `out` values, each row padded with zeros to a
 * multiple of 4.
 */
export const packMatrix = (out: number, inputs: number, type: WeightDtype): Packing =>
  transposed(`matrix.${type}.${out}x${inputs}`, inputs, packedPitch(out), type);

/** Packs a bias [out], padded with zeros to a multiple of 4. */
export function packVector(out: number): Packing {
  return {
    key: `vector.${out}`,
    bytes: 4 * pad4(out),
    dtype: 'f32',
    row: 1,
    place: (part, from, packed) => new Float32Array(packed).set(part, from),
  };
}
