// How elementwise kernels walk over memory, and exact division by a dimension of the shape.
//
// A software driver spends more time on starting a workgroup than on a few vec4s, and it scalarises loads anyway. There
// a workgroup is one or two subgroups wide and processes many elements. On a GPU a workgroup is wide, its neighbouring
// invocations read neighbouring vec4s, and each processes few. The numbers per family are in families.ts.
//
// Versions and what they measured:
// - 64 vec4s per workgroup on lavapipe, 2 cores: a copy of 6 MB takes 3 times as long as with 2048
//   (`npm run bench -- kernels --op add,activation`). Hence the software families walk up to 2048.
// - On an H200 (bench/results/nvidia-h200.json) 64 lanes with one vec4 each copy 2.97 TB/s, 256 lanes with
//   four vec4s each 4.13 TB/s, and 8 lanes with 2048 vec4s each 1.07 TB/s. The `tile` walk is the first of
//   these.

import type { Capabilities } from './device.ts';
import { WALKS } from './families.ts';
import {
  ceilDiv,
  f32,
  type Grid,
  LINEAR_GROUP,
  linearGrid,
  linearMain,
  type Uniform,
  u32,
} from './kernel.ts';
import { columns, type Shape } from './tensor.ts';

/** Returns the uniforms of a divisor: `name`, and `nameInverse` for `quotient(a, u.name, u.nameInverse)`. */
export const divisor = (name: string, value: number): readonly [Uniform, Uniform] => [
  u32(name, value),
  f32(`${name}Inverse`, 1 / value),
];

/**
 * `quotient(a, d, inverse) -> u32` is floor(a / d), exact for a < 2^31 and a / d < 2^22 with inverse = 1 / d
 * in f32. The float estimate is off by at most one, and the sign of the remainder shows in which direction.
 * It takes 6 vector instructions, whereas a software driver scalarises u32 division per lane.
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

interface Walk {
  readonly uniforms: readonly Uniform[];
  readonly grid: Grid;
  /** Returns the entry point, whose `body` runs once for each index `i` below the count. */
  readonly main: (body: string) => string;
}

/**
 * Returns a walk over `count` independent elements (usually vec4s); neighbouring lanes process neighbouring elements.
 */
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
 * Returns a walk over the elements of `shape` [c, n, h, w]. In WGSL, `body` can use the element's `channel`, its
 * `column` in that channel, its `line` (one of n h), `sample`, `row`, its position `across` in the row, and `quotient`.
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

interface Teams {
  /** Invocations that share one item. */
  readonly team: number;
  readonly uniforms: readonly Uniform[];
  readonly grid: Grid;
  /** Returns the entry point, whose `body` runs for each (`row`, `sample`) in every invocation `member` of its team. */
  readonly main: (body: string) => string;
}

/**
 * Returns a walk over items (row, sample) of `length` elements (usually vec4s). A team of invocations shares
 * an item. On a GPU the team is a whole workgroup, which is wider for long items. Elsewhere it is one
 * invocation, and a workgroup processes eight samples side by side: no value is reduced across lanes, and
 * values of a whole item are loaded once.
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

/** How many blocks of rows and of columns a matrix has, and how many such matrices, or parts of a sum, there are. */
interface BlockCounts {
  readonly rowBlocks: number;
  readonly columnBlocks: number;
  readonly parts: number;
}

/**
 * Returns a walk over the blocks of matrices, with a workgroup of `lanes` for each: its `main` runs `body` in every
 * invocation `local` of the block (`rowBlock`, `columnBlock`) of `part`. Blocks of rows are next to each other.
 */
export function blocks(lanes: number, { rowBlocks, columnBlocks, parts }: BlockCounts): Walk {
  return {
    uniforms: [
      ...divisor('rowBlocks', rowBlocks),
      ...divisor('columnBlocks', columnBlocks),
      u32('parts', parts),
    ],
    grid: linearGrid(rowBlocks * columnBlocks * parts),
    main: (body) => /* wgsl */ `${LINEAR_GROUP}${QUOTIENT}
${linearMain(lanes)}
  let index = linearGroup(group, groups);
  let rest = quotient(index, u.rowBlocks, u.rowBlocksInverse);
  let part = quotient(rest, u.columnBlocks, u.columnBlocksInverse);
  if (part >= u.parts) { return; }
  let rowBlock = index - rest * u.rowBlocks;
  let columnBlock = rest - part * u.columnBlocks;
  ${body}
}
`,
  };
}

/**
 * Returns WGSL of a team's loop over `i` from `start` to `end`, unrolled by four (on a software driver every
 * variable that a loop carries costs time). `step(k, i)` returns the code for one element; `k` is its index
 * in the unrolled four.
 */
export const unrolled = (team: number, step: (k: number, i: string) => string): string => /* wgsl */ `
    var i = start + member;
    for (; i + ${3 * team} < end; i += ${4 * team}) {
      ${[0, 1, 2, 3].map((k) => step(k, `i + ${k * team}`)).join('\n      ')}
    }
    for (; i < end; i += ${team}) {
      ${step(0, 'i')}
    }`;

/** Returns the element type for walks over a sample's pixels: vec4f if every sample starts on a vec4, else f32. */
export const pixelElement = (pixels: number): { readonly width: 1 | 4; readonly element: 'f32' | 'vec4f' } =>
  pixels % 4 === 0 ? { width: 4, element: 'vec4f' } : { width: 1, element: 'f32' };

/** Returns a walk of teams over the pixels of each (channel, sample) of a shape, with `pixels` elements per item. */
export function pixelTeams(capabilities: Capabilities, [c, n, h, w]: Shape) {
  const { width, element } = pixelElement(h * w);
  const pixels = (h * w) / width;
  return { width, element, pixels, ...teams(capabilities, c, n, pixels) };
}
