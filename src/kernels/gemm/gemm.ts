// The one matrix product under every dense layer: batched, both factors k-major, with an epilogue.

import { ShapeError } from '../../errors.ts';
import type { Capabilities } from '../device/device.ts';
import type { Family } from '../device/families.ts';
import type { Kernel } from '../device/kernel.ts';
import { transposed } from '../device/packing.ts';
import type { Packing, WeightDtype } from '../device/routine.ts';
import { gemmPlain } from './gemm-plain.ts';
import type { GemmSpec } from './gemm-spec.ts';
import { gemmSubgroup } from './gemm-subgroup.ts';
import { gemmTile } from './gemm-tile.ts';

export type { GemmSpec, Matrices } from './gemm-spec.ts';

const GEMMS: Readonly<Record<Family, (capabilities: Capabilities, spec: GemmSpec) => Kernel>> = {
  subgroup: gemmSubgroup,
  tile: (_, spec) => gemmTile(spec),
  plain: (_, spec) => gemmPlain(spec),
};

/**
 * A kernel for c = scale · (act(bias + aᵀ b) + residual); see `GemmSpec`.
 * Its operands are `a b [bias] [residual] c`, in this order.
 * The tile may depend on the number of columns, but an element's bytes do not: its sum runs in the order of k.
 * @throws ShapeError where a pitch, stride or offset is not a multiple of 4, or a dimension is not positive.
 */
export function gemm(capabilities: Capabilities, spec: GemmSpec): Kernel {
  for (const name of ['m', 'k', 'columns'] as const)
    if (!(spec[name] > 0)) throw new ShapeError(`gemm: ${name} is ${spec[name]}, wanted at least 1`);
  return GEMMS[capabilities.family](capabilities, spec);
}

const pad4 = (value: number): number => Math.ceil(value / 4) * 4;

/** Elements from one row of a weight packed by `packMatrix` to the next. */
export const packedPitch = (out: number): number => pad4(out);

/**
 * Packs a weight [out, in] to factor a, k-major: `in` rows of `out` values, each row padded with zeros to a multiple of
 * 4.
 */
export const packMatrix = (out: number, inputs: number, type: WeightDtype): Packing =>
  transposed(`matrix.${type}.${out}x${inputs}`, inputs, packedPitch(out), type);

/** Packs a bias [out]: zeros up to a multiple of 4. */
export function packVector(out: number): Packing {
  return {
    key: `vector.${out}`,
    bytes: 4 * pad4(out),
    dtype: 'f32',
    row: 1,
    place: (part, from, packed) => new Float32Array(packed).set(part, from),
  };
}
