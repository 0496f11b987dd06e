// How a convolution's weights lie on the device: k-major panels [k][outChannels], rows padded to a multiple of 8.

import type { Geometry } from './conv2d-shape.ts';
import { ceilDiv } from './kernel.ts';
import type { Packing, WeightDtype } from './routine.ts';

/** Output channels of a row of packed weights. */
export const paddedChannels = (outChannels: number): number => ceilDiv(outChannels, 8) * 8;

/** The f16 bits nearest to a value, ties to even. */
export function halfBits(value: number): number {
  const [b] = new Uint32Array(Float32Array.of(value).buffer) as unknown as [number];
  const sign = (b >>> 16) & 0x8000;
  const magnitude = b & 0x7fffffff;
  if (magnitude >= 0x7f800000) return sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00);
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude >= 0x38800000)
    return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  return sign | roundEven(Math.abs(value) * 2 ** 24);
}

function roundEven(v: number): number {
  const low = Math.floor(v);
  const rest = v - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
}

/** Rows [k][padded channels], k = (input channel, kernel row, kernel column), of weights [oc, ic, kh, kw]. */
export function packRows({ x, y, kernel: [kh, kw], weights }: Geometry): Packing {
  const k = x[0] * kh * kw;
  const row = paddedChannels(y[0]);
  return {
    key: `conv2d.rows.${y[0]}x${k}.${weights}`,
    bytes: k * row * (weights === 'f16' ? 2 : 4),
    pack: (values) => {
      const out = weights === 'f16' ? new Uint16Array(k * row) : new Float32Array(k * row);
      for (let o = 0; o < y[0]; o++)
        for (let i = 0; i < k; i++) {
          const v = values[o * k + i]!;
          out[i * row + o] = weights === 'f16' ? halfBits(v) : v;
        }
      return out;
    },
  };
}

/** The element type of packed weights as vec4s, and `weightAt(i: u32) -> vec4f`. */
export const weightElement = (weights: WeightDtype): string => (weights === 'f16' ? 'vec2u' : 'vec4f');

export const weightWgsl = (weights: WeightDtype): string => /* wgsl */ `
fn weightAt(i: u32) -> vec4f { ${
  weights === 'f16'
    ? 'let pair = weight[i]; return vec4f(unpack2x16float(pair.x), unpack2x16float(pair.y));'
    : 'return weight[i];'
} }
`;
