// Transforms a convolution's weights on the device each time it runs. For F(4x4, 3x3) transformed weights
// take 4 times the memory of the f32 weights, or 8 times that of f16 weights, and a large network needs those
// of only one convolution at a time.

import { divisor, QUOTIENT } from '../device/indexing.ts';
import { ceilDiv, LINEAR_GROUP, linearGrid, linearMain, read, u32, write } from '../device/kernel.ts';
import { type Step, step } from '../device/routine.ts';
import { packedPitch } from '../gemm/gemm.ts';
import type { Geometry } from './conv2d-shape.ts';
import { lines } from './conv2d-tiles.ts';
import { paddedChannels, weightElement, weightWgsl } from './conv2d-weights.ts';

const LANES = 32;

/** Returns WGSL of a row of R times three values. */
function product(row: readonly number[], value: (k: number) => string): string {
  const terms = row.flatMap((r, k) => (r === 0 ? [] : [r === 1 ? value(k) : `${r} * ${value(k)}`]));
  return terms.join(' + ');
}

/**
 * factors[place][ic][o - first] = R g Rᵀ of the weights g of the output channels o from `first`, a multiple
 * of 4, on. An invocation transforms the weights of an input channel and four output channels.
 */
export function transformWeights(
  geometry: Geometry,
  R: readonly (readonly number[])[],
  { first, count }: { readonly first: number; readonly count: number },
): Step {
  const { x, y, weights } = geometry;
  const vectors = packedPitch(count) / 4;
  const size = R.length;
  return step({
    name: `conv2d.factors.${size}.${weights}`,
    bindings: [read('weight', weightElement(weights)), write('factors', 'vec4f')],
    uniforms: [
      ...divisor('vectors', vectors),
      u32('channels', x[0]),
      u32('first', first / 4),
      u32('weightRow', paddedChannels(y[0]) / 4),
    ],
    body: /* wgsl */ `${LINEAR_GROUP}${QUOTIENT}${weightWgsl(weights)}
${linearMain(LANES)}
  let index = linearGroup(group, groups) * ${LANES} + local;
  let channel = quotient(index, u.vectors, u.vectorsInverse);
  if (channel >= u.channels) { return; }
  let at = channel * 9 * u.weightRow + u.first + index - channel * u.vectors;
  ${lines(9, (k) => `let g${k} = weightAt(at + ${k} * u.weightRow);`)}
  ${lines(size, (i) => lines(3, (k) => `let h${i}${k} = ${product(R[i]!, (j) => `g${3 * j + k}`)};`))}
  let place = u.channels * u.vectors;
  var to = index;
  ${lines(size, (i) => lines(size, (j) => `factors[to] = ${product(R[j]!, (k) => `h${i}${k}`)}; to += place;`))}
}`,
    grid: linearGrid(ceilDiv(vectors * x[0], LANES)),
  });
}
