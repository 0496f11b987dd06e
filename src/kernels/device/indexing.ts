// How elementwise kernels walk over memory, and exact division by a number of the shape.
//
// A software driver spends more on starting a workgroup than on a few vec4s, and scalarises loads anyway, so
// there a workgroup is one or two subgroups wide and walks far; on a GPU neighbours in a wide workgroup read
// neighbouring vec4s and each does little. A copy of 6 MB runs 3 times faster with 2048 vec4s a workgroup than
// with 64 (lavapipe on 2 cores; `npm run bench -- kernels --op add,activation` times such walks).

import type { Capabilities } from './device.ts';
import { WALKS } from './families.ts';
import { ceilDiv, f32, type Grid, LINEAR_GROUP, linearGrid, type Uniform, u32 } from './kernel.ts';
import { columns, type Shape } from './tensor.ts';

/** A divisor in the uniform block: `name`, and `nameInverse` for `quotient(a, u.name, u.nameInverse)`. */
export const divisor = (name: string, value: number): readonly [Uniform, Uniform] => [
  u32(name, value),
  f32(`${name}Inverse`, 1 / value),
];

/**
 * `quotient(a, d, inverse) -> u32` is floor(a / d), exact for a < 2^31 and a / d < 2^22 with inverse = 1 / d in
 * f32: the float estimate is off by one at most, which the remainder's sign tells. 6 vector instructions where
 * u32 division is scalarised per lane.
 */
export const QUOTIENT = /* wgsl */ `
fn quotient(a: u32, d: u32, inverse: f32) -> u32 {
  let q = i32(f32(a) * inverse);
  let r = i32(a) - q * i32(d);
  return u32(q + select(0, 1, r >= i32(d)) - select(0, 1, r < 0));
}
`;

const MAIN = (lanes: number) => /* wgsl */ `${LINEAR_GROUP}
@compute @workgroup_size(${lanes}) fn main(@builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {`;

export interface Walk {
  readonly uniforms: readonly Uniform[];
  readonly grid: Grid;
  /** The entry point: `body` runs once for each index `i` below the count. */
  readonly main: (body: string) => string;
}

/** A walk over `count` independent elements (usually vec4s), neighbours in neighbouring lanes. */
export function walk({ family }: Capabilities, count: number): Walk {
  const { lanes, longest } = WALKS[family];
  // At least 64 workgroups, if the count allows it, so that every core gets its share.
  const chunk = Math.max(lanes, Math.min(longest, lanes * ceilDiv(count, 64 * lanes)));
  return {
    uniforms: [u32('count', count), u32('chunk', chunk)],
    grid: linearGrid(ceilDiv(count, chunk)),
    main: (body) => /* wgsl */ `${MAIN(lanes)}
  let start = linearGroup(group, groups) * u.chunk;
  let end = min(start + u.chunk, u.count);
  for (var i = start + lane; i < end; i += ${lanes}u) {
    ${body}
  }
}
`,
  };
}

/**
 * A walk over the elements of `shape` [c, n, h, w]: `body` runs for each with its `channel`, its `column` in that
 * channel, its `line` (of n h), `sample`, `row`, and its place `across` in the row; `quotient` is at hand.
 */
export function walkPixels(capabilities: Capabilities, shape: Shape): Walk {
  const { uniforms, grid, main } = walk(capabilities, shape[0] * columns(shape));
  return {
    uniforms: [
      ...uniforms,
      ...divisor('columns', columns(shape)),
      ...divisor('width', shape[3]),
      ...divisor('height', shape[2]),
    ],
    grid,
    main: (body) =>
      QUOTIENT +
      main(/* wgsl */ `let channel = quotient(i, u.columns, u.columnsInverse);
  let column = i - channel * u.columns;
  let line = quotient(column, u.width, u.widthInverse);
  let sample = quotient(line, u.height, u.heightInverse);
  let row = line - sample * u.height;
  let across = column - line * u.width;
  ${body}`),
  };
}

export interface Teams {
  /** Invocations that walk one item together. */
  readonly team: number;
  readonly uniforms: readonly Uniform[];
  readonly grid: Grid;
  /** The entry point: `body` runs once for each (`row`, `sample`), in the team's invocation `member`. */
  readonly main: (body: string) => string;
}

/**
 * Items (row, sample) of `length` elements (usually vec4s), each walked by a team: a whole workgroup on a GPU, a
 * wide one for long items; elsewhere one invocation, eight samples side by side, so that nothing is reduced
 * across lanes and what holds for a whole item is loaded once for it.
 */
export function teams({ family }: Capabilities, rows: number, n: number, length: number): Teams {
  const { items, team: teamOf } = WALKS[family];
  const team = teamOf(length);
  return {
    team,
    uniforms: [u32('items', rows * n), ...divisor('n', n)],
    grid: linearGrid(ceilDiv(rows * n, items)),
    main: (body) => /* wgsl */ `${QUOTIENT}${MAIN(team * items)}
  let item = linearGroup(group, groups)${items > 1 ? ` * ${items}u + lane` : ''};
  if (item >= u.items) { return; }
  let member = ${team > 1 ? 'lane' : '0u'};
  let row = quotient(item, u.n, u.nInverse);
  let sample = item - row * u.n;
  ${body}
}
`,
  };
}

/**
 * A team's loop over `i` from `start` to `end` in WGSL, four steps a turn (a software driver pays for every
 * variable that a loop carries); `step(k, i)` is the code for one element, where `k` says which of the four.
 */
export const unrolled = (team: number, step: (k: number, i: string) => string): string => /* wgsl */ `
    var i = start + member;
    for (; i + ${3 * team} < end; i += ${4 * team}) {
      ${[0, 1, 2, 3].map((k) => step(k, `i + ${k * team}`)).join('\n      ')}
    }
    for (; i < end; i += ${team}) {
      ${step(0, 'i')}
    }`;

/** Whether a sample's pixels start on a vec4 in every row: the element type for walks over a sample's pixels. */
export const pixelElement = (pixels: number): { readonly width: 1 | 4; readonly element: 'f32' | 'vec4f' } =>
  pixels % 4 === 0 ? { width: 4, element: 'vec4f' } : { width: 1, element: 'f32' };

/** Invocations of a workgroup of a kernel that does one element an invocation (where that does much work). */
export const LANES = 64;

/** `linearIndex(group, groups, local)`: this invocation's index in a `linearGrid` of workgroups of `LANES`. */
export const LINEAR_INDEX = /* wgsl */ `${LINEAR_GROUP}
fn linearIndex(group: vec3u, groups: vec3u, local: u32) -> u32 {
  return linearGroup(group, groups) * ${LANES}u + local;
}
`;

/** The head of such a kernel's `main`: its builtins by the names that `linearIndex` wants. */
export const ELEMENTWISE_MAIN = /* wgsl */ `@compute @workgroup_size(${LANES}) fn main(
  @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32)`;
