// Sums over pixels and over columns: the gradients of embedding rows and of biases, which are added to all of them.

import type { Capabilities } from '../device/device.ts';
import { divisor, pixelElement, QUOTIENT, teams, unrolled, walk } from '../device/indexing.ts';
import { ceilDiv, defineKernel, type Kernel, read, u32, write } from '../device/kernel.ts';
import { type Routine, type Step, step } from '../device/routine.ts';
import { columns, pitch, type Shape } from '../device/tensor.ts';
import { SUMS } from './families.ts';
import { zeros } from './group-norm.ts';
import { treeReduction } from './reduction.ts';

/** Rows of x, divided into segments of equal length and these into chunks. */
interface Segments {
  readonly segments: number;
  /** Elements of a segment. */
  readonly length: number;
  readonly chunks: number;
  readonly element: 'f32' | 'vec4f';
}

/**
 * Returns the kernel of sums[row][segment · chunks + chunk]. Each is computed as four running sums, added at the end.
 */
function chunksKernel(
  capabilities: Capabilities,
  x: Shape,
  { segments, length, chunks, element }: Segments,
  sumsPitch: number,
): Kernel {
  const width = element === 'vec4f' ? 4 : 1;
  const vectors = Math.floor(length / width);
  const tail = length % width;
  const chunk = ceilDiv(vectors, chunks);
  const { team, uniforms, grid, main } = teams(capabilities, x[0], segments * chunks, chunk);
  const total = width === 4 ? 'dot(sum, vec4f(1))' : 'sum';
  return defineKernel({
    name: ['sums', element, tail ? 'tail' : '', team > 1 ? `workgroup${team}` : 'lane']
      .filter(Boolean)
      .join('.'),
    bindings: [read('x', element), write('sums')],
    uniforms: [
      ...uniforms,
      ...divisor('chunks', chunks),
      u32('chunk', chunk),
      u32('vectors', vectors),
      u32('tail', tail),
      u32('rowPitch', pitch(x) / width),
      u32('sumsPitch', sumsPitch),
    ],
    body: /* wgsl */ `
alias Element = ${element};
${team > 1 ? treeReduction('f32', team) : 'fn reduce(v: f32, lane: u32) -> f32 { return v; }'}
${main(/* wgsl */ `let segment = quotient(sample, u.chunks, u.chunksInverse);
  let base = row * u.rowPitch + segment * u.vectors;
  let place = sample - segment * u.chunks;
  let first = place * u.chunk;
  let start = base + min(first, u.vectors);
  let end = base + min(first + u.chunk, u.vectors);
  ${zeros('s')}
  ${unrolled(team, (k, i) => `s${k} += x[${i}];`)}
  var sum = (s0 + s1) + (s2 + s3);
  ${
    tail
      ? `if (member == 0 && place == u.chunks - 1) {
    let last = x[base + u.vectors]; // the contents after the row's last column are unspecified
    sum += select(vec4f(), last, vec4u(0, 1, 2, 3) < vec4u(u.tail));
  }`
      : ''
  }
  let all = reduce(${total}, member);
  if (member == 0) { sums[row * u.sumsPitch + sample] = all; }`)}`,
    grid,
  });
}

/** Returns the step that adds the chunks of each segment to y[row][segment], in their order. */
function fold(capabilities: Capabilities, rows: number, { segments, chunks }: Segments): Step {
  const { uniforms, grid, main } = walk(capabilities, rows * segments);
  return step({
    name: 'sums.fold',
    bindings: [read('sums'), write('y')],
    uniforms: [
      ...uniforms,
      ...divisor('segments', segments),
      u32('chunks', chunks),
      u32('yPitch', pitch([1, segments, 1, 1])),
    ],
    body:
      QUOTIENT +
      main(/* wgsl */ `let row = quotient(i, u.segments, u.segmentsInverse);
  let begin = i * u.chunks;
  var sum = sums[begin];
  for (var k = begin + 1; k < begin + u.chunks; k++) { sum += sums[k]; }
  y[row * u.yPitch + i - row * u.segments] = sum;`),
    grid,
  });
}

function sums(capabilities: Capabilities, x: Shape, cut: Omit<Segments, 'chunks'>): Routine {
  const { segments, length } = cut;
  const all: Segments = { ...cut, chunks: ceilDiv(length, SUMS[capabilities.family].longestSum) };
  if (all.chunks === 1)
    return {
      steps: [
        { kernel: chunksKernel(capabilities, x, all, pitch([1, segments, 1, 1])), operands: ['x', 'y'] },
      ],
      scratch: {},
      packing: {},
    };
  const row = segments * all.chunks;
  return {
    steps: [
      { kernel: chunksKernel(capabilities, x, all, row), operands: ['x', 'sums'] },
      fold(capabilities, x[0], all),
    ],
    scratch: { sums: 4 * x[0] * row },
    packing: {},
  };
}

/**
 * y[c, n] = Σ over pixels of x[c, n, p]; operands x [c, n, h, w], y [c, n, 1, 1]. A sample's bytes do not depend on n.
 */
export function sumPixels(capabilities: Capabilities, { x }: { readonly x: Shape }): Routine {
  const length = x[2] * x[3];
  return sums(capabilities, x, { segments: x[1], length, element: pixelElement(length).element });
}

/** y[c] = Σ over samples and pixels of x[c, n, p]; operands x [c, n, h, w], y [c, 1, 1, 1]. */
export const sumColumns = (capabilities: Capabilities, { x }: { readonly x: Shape }): Routine =>
  sums(capabilities, x, { segments: 1, length: columns(x), element: 'vec4f' });
