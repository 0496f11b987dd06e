// The one matrix product under every dense layer: batched, both factors k-major, with an epilogue.

import type { Capabilities } from './device.ts';
import { ShapeError } from './errors.ts';
import { gemmPlain } from './gemm-plain.ts';
import type { GemmSpec } from './gemm-spec.ts';
import { gemmSubgroup } from './gemm-subgroup.ts';
import { gemmTile } from './gemm-tile.ts';
import { packHalves } from './half.ts';
import type { Kernel } from './kernel.ts';
import type { Packing, WeightDtype } from './routine.ts';

export type { GemmSpec, Matrices } from './gemm-spec.ts';

/**
 * A kernel for c = scale · (act(bias + aᵀ b) + residual); see `GemmSpec`.
 * Its operands are `a b [bias] [residual] c`, in this order.
 * The tile depends on the number of rows m alone, never on the number of columns.
 * @throws ShapeError where a pitch, stride or offset is not a multiple of 4, or a dimension is not positive.
 */
export function gemm(capabilities: Capabilities, spec: GemmSpec): Kernel {
  for (const name of ['m', 'k', 'columns'] as const)
    if (!(spec[name] > 0)) throw new ShapeError(`gemm: ${name} is ${spec[name]}, wanted at least 1`);
  switch (capabilities.family) {
    case 'subgroup':
      return gemmSubgroup(capabilities, spec);
    case 'tile':
      return gemmTile(spec);
    case 'plain':
      return gemmPlain(spec);
    default:
      return capabilities.family satisfies never;
  }
}

const pad4 = (value: number): number => Math.ceil(value / 4) * 4;

/** Elements from one row of a weight packed by `packMatrix` to the next. */
export const packedPitch = (out: number): number => pad4(out);

/**
 * Packs a weight [out, in] to factor a, k-major: `in` rows of `out` values, each row padded with zeros to a multiple of
 * 4. Several weights of one shape are packed one behind the other (`count`), as factors of a batch.
 */
export function packMatrix(out: number, inputs: number, type: WeightDtype, count = 1): Packing {
  const pitch = packedPitch(out);
  const elements = count * inputs * pitch;
  return {
    key: `matrix.${type}.${count}x${out}x${inputs}`,
    bytes: elements * (type === 'f16' ? 2 : 4),
    pack(values) {
      const packed = new Float32Array(elements);
      for (let w = 0; w < count; w++)
        for (let m = 0; m < out; m++)
          for (let k = 0; k < inputs; k++)
            packed[(w * inputs + k) * pitch + m] = values[(w * out + m) * inputs + k]!;
      return type === 'f16' ? packHalves(packed) : packed;
    },
  };
}

/** Packs a bias [out]: zeros up to a multiple of 4. */
export function packVector(out: number): Packing {
  return {
    key: `vector.${out}`,
    bytes: 4 * pad4(out),
    pack(values) {
      const packed = new Float32Array(pad4(out));
      packed.set(values);
      return packed;
    },
  };
}
