// GEMM whose operands are broadcast between the lanes of one subgroup: the family of software adapters.
//
// Versions on lavapipe (2 cores, Mesa 25.0.7, 8 lanes), each with its idea and its rate in GFLOP/s. The tiles
// were measured on prototypes with matrices of 512.
// - Tile of 16 x 32, k not unrolled: 57.
// - Tile of 32 x 32: 68; with k unrolled by 2: 75.
// - Tile of 32 x 64: 76 to 79; with k unrolled by 2: 85 to 88 (the tile of many columns here); by 4: 47,
//   because the code exceeds the instruction cache.
// - Factor a as f16 with f32 sums, 32 x 64, k by 2: 94.
// - Prefetch of a large b by one lane per cache line: 32 to 44 for 96 -> 32 channels at 14x14.
// - Tile of 32 x 32 with k unrolled by 4 for at most 32 columns: 96 -> 96 products of 32 columns in a UNet at
//   n = 32 take 11.5 ms, and 13.3 ms without it.
//
// Versions on Mesa 26.2.6, whose products are fused, on an Intel Xeon with AVX-512 (2 cores), prototypes with matrices of
// 512, in GFLOP/s of processor time. In parentheses: with Dawn's `disable_robustness`, which also ends the driver's own
// checks of bounds, so that a store out of bounds crashes the process. The peak in registers is 196 with 8 lanes and 302
// with 16 (LP_NATIVE_VECTOR_WIDTH=512).
// - Tile of 32 x 64, k by 2: 70 (84) with 8 lanes. Tile of 32 x 128 with 16 lanes: 77 (86).
// - Register tile of 8 x 48, k by 16, 16 lanes: 56 (66). Seven tenths of the time are loads that miss the first cache.
// - Tile of 32 x 64, k by 8, 16 lanes: 84 (101).
// - The same with the order of rows given to the compiler by a dependency: 97 (120). Tile of 64 x 64: 105 (128).
// - The same with cache lines touched one iteration ahead (the tile of 16 lanes here): 110 (145). With k by 16: (154), but
//   its code exceeds an instruction cache of 32 KB.
// - 8 lanes, 32 x 64, k by 8, rows in order: 72 (95 to 102), hardly more than without (not used).

import type { Capabilities } from '../device/device.ts';
import { defineKernel, f32, type Kernel, u32 } from '../device/kernel.ts';
import type { TiledKernel } from '../device/tuning.ts';
import {
  EXAMPLE,
  type GemmSpec,
  gemmBindings,
  gemmGrid,
  gemmParts,
  gemmShape,
  gemmUniforms,
  type Tile,
  unroll,
} from './gemm-spec.ts';

/** The most accumulators of a lane, in vec4s. With more, the unrolled loop exceeds a 32 KB instruction cache. */
const ACCUMULATORS = 64;

/**
 * A matrix b of more bytes does not stay in a core's cache; its rows are too far apart for the hardware to prefetch.
 */
const NEAR_BYTES = 1.5 * 2 ** 20;
/** A value that k & 7 does not have. */
const NEVER = 8;

/** How one subgroup computes its part of the result. */
export interface SubgroupTile {
  /** Elements of a that a lane loads at a time. */
  readonly load: 1 | 2 | 4;
  /** Loads of a for each k: a subgroup computes lanes·load·blocks / matrices rows. */
  readonly blocks: number;
  /** vec4s of b that a lane loads for each k: a subgroup computes 4·lanes·vecs / matrices columns. */
  readonly vecs: number;
  /** Values of k by which the loop is unrolled: 1, 2, 4 or 8. */
  readonly depth: 1 | 2 | 4 | 8;
  /** Rows that are summed over the unrolled k before the next rows begin; 0 leaves the order to the compiler. */
  readonly group: 0 | 2 | 4;
  /** Matrices of a batch that a subgroup computes, each with an equal share of its lanes (1). */
  readonly matrices: 1 | 2;
}

/**
 * Returns the tile for m rows. With 16 lanes it is the largest ordered one that wastes no half of its rows. Otherwise
 * its rows are the fewest of lanes·{2, 4} that hold min(m, 32), and its columns use all accumulators, or one vec4 per
 * lane if there are no more columns. `pairs` and `fortyRows` give better tiles for some shapes.
 */
function rule(capabilities: Capabilities, spec: GemmSpec): SubgroupTile {
  const { subgroupSize: lanes } = capabilities;
  const { m, columns } = spec;
  const [best] = [...ordered(capabilities, spec), ...pairs(capabilities, spec)];
  if (best) return best;
  const load = ([2, 4] as const).find((l) => lanes * l >= Math.min(m, 32)) ?? 4;
  const vecs = columns <= 4 * lanes ? 1 : Math.max(1, Math.min(2, ACCUMULATORS / (lanes * load)));
  const depth = lanes * load * vecs <= ACCUMULATORS / 2 ? 4 : 2;
  const [fitting] = vecs === 2 ? fortyRows(capabilities, spec) : [];
  return fitting ?? { load, blocks: 1, vecs, depth, group: 0, matrices: 1 };
}

/** Tiles of 16 lanes whose rows are summed in groups, largest first; see `gemmSubgroup`. */
const ORDERED: readonly SubgroupTile[] = [
  { load: 2, blocks: 2, vecs: 1, depth: 8, group: 4, matrices: 1 },
  { load: 2, blocks: 1, vecs: 1, depth: 8, group: 4, matrices: 1 },
  { load: 1, blocks: 1, vecs: 1, depth: 8, group: 4, matrices: 1 },
];

/**
 * Returns the ordered tiles that waste no half of their rows; none for fewer lanes. Values of f16 are loaded in twos.
 */
const ordered = ({ subgroupSize: lanes }: Capabilities, { m, aType }: GemmSpec): readonly SubgroupTile[] =>
  lanes < 16
    ? []
    : ORDERED.filter(({ load, blocks }) => lanes * load * blocks < 2 * m && !(load === 1 && aType === 'f16'));

/**
 * Returns the tile in which two matrices of a batch share a subgroup, if half of its lanes hold all columns: 32 rows with 8
 * lanes. 36 products of 1280 x 1280 x 16, as in Winograd's method for one image of 16x16, then run at 44 instead of 28
 * GFLOP/s on lavapipe (Mesa 25.0.7). More matrices with fewer lanes each are not faster.
 */
const pairs = (
  { subgroupSize: lanes }: Capabilities,
  { columns, batch = [1, 1] }: GemmSpec,
): readonly SubgroupTile[] =>
  lanes === 8 && columns <= 2 * lanes && batch[0] * batch[1] > 1
    ? [{ load: 4, blocks: 2, vecs: 1, depth: 4, group: 0, matrices: 2 }]
    : [];

/**
 * Returns the tile of 40 rows and 8 lanes, if it saves a seventh of the rows that tiles of 32 would compute: heads of 40
 * or 80 channels. The product of 40 rows of values with 4,096 keys then runs at 54 instead of 34 GFLOP/s on lavapipe
 * (Mesa 25.0.7).
 */
const fortyRows = ({ subgroupSize: lanes }: Capabilities, { m, aType }: GemmSpec): readonly SubgroupTile[] =>
  lanes === 8 && aType !== 'f16' && 40 * Math.ceil(m / 40) * 1.15 < 32 * Math.ceil(m / 32)
    ? [{ load: 1, blocks: 5, vecs: 2, depth: 2, group: 0, matrices: 1 }]
    : [];

/** Returns the tiles that waste no half of their rows or columns, and whose accumulators do not exceed the limit. */
function candidates(capabilities: Capabilities, spec: GemmSpec): SubgroupTile[] {
  const { subgroupSize: lanes } = capabilities;
  const { m, columns } = spec;
  const tiles: SubgroupTile[] = [];
  for (const depth of [2, 4, 1, 8] as const)
    for (const load of [4, 2] as const)
      for (const vecs of [2, 1, 4]) {
        const accumulators = lanes * load * vecs;
        if (accumulators > ACCUMULATORS || accumulators * depth > 4 * ACCUMULATORS) continue;
        if (load > 2 && 2 * m <= lanes * load) continue;
        if (vecs > 1 && 2 * columns <= 4 * lanes * vecs) continue;
        tiles.push({ load, blocks: 1, vecs, depth, group: 0, matrices: 1 });
      }
  return [
    ...ordered(capabilities, spec),
    ...pairs(capabilities, spec),
    ...fortyRows(capabilities, spec),
    ...tiles,
  ];
}

/** The GEMM of the `subgroup` family with its tiles as data. */
export const SUBGROUP_GEMM: TiledKernel<GemmSpec, SubgroupTile> = {
  shapeOf: (spec) => gemmShape('gemm.subgroup', spec),
  nameOf: ({ load, blocks, vecs, depth, group, matrices }) =>
    [
      `load${load}.vecs${vecs}.depth${depth}`,
      ...(group > 0 || blocks > 1 ? [`blocks${blocks}`] : []),
      ...(group > 0 ? [`group${group}`] : []),
      ...(matrices > 1 ? [`matrices${matrices}`] : []),
    ].join('.'),
  rule,
  candidates,
  kernel: gemmSubgroup,
  example: EXAMPLE,
};

/**
 * One workgroup is one subgroup and computes a tile of 32 x 64 (16 x 64 for few rows, 32 x 32 for few
 * columns; 8 lanes). Lane l loads elements 4l..4l+3 of a's row k and two vec4s of b's row k. Every element of
 * a is then broadcast to all lanes and multiplied with their columns. There is no workgroup memory and no
 * barrier. On a software adapter a load costs more than a multiplication, so an element of a is loaded once
 * per subgroup and an element of b once per 32 rows.
 *
 * In lavapipe's machine code (Mesa 25.0.7, AVX2) a product is a vmulps and a vaddps, never fused, and a
 * broadcast is a vpermd. In every iteration an accumulator is loaded from the stack and stored through a
 * vblendvps with the execution mask, which costs as much as three of these instructions. Loading an f32 takes
 * 10 instructions per lane as part of a vec4 and 18 alone, because bounds and mask are tested each time. So k
 * is unrolled: by 4 if a lane has 32 vec4s of accumulators, by 2 if it has 64 (unrolled by 3 or 4 the code
 * exceeds the instruction cache and is 5 to 50 % slower). The epilogue is a loop that stores four rows and
 * moves the other sums up by four. Fully unrolled it would take four times as long to compile and exceed the
 * instruction cache; an array of sums indexed by the loop would be read lane by lane.
 *
 * Ordered tiles are for Mesa 26. Its loads of all lanes are vpgatherdd, and there are enough registers for 16 vectors of
 * sums. Without help the compiler moves all sums to and from the stack for every second k, because it orders the products
 * by k. So k is unrolled by 8, and the sums of a group of rows pretend to depend on the group before (`after`), which
 * makes the compiler finish a group before the next. Factors are multiplied by 1 after loading: a loaded value is an
 * integer to the compiler, and it broadcasts an integer through a scalar register, but a float with a single vpermps.
 * The next iteration's cache lines of both factors are touched, one per lane, so that their misses overlap.
 *
 * If b is large, the workgroup of the first rows of other tiles touches the cache lines of b's next 8 rows, one per lane, so that the
 * cache misses overlap: 96 to 32 channels at 14x14 then run at 44 instead of 32 GFLOP/s (bench/kernels.ts, `linear`).
 */
function gemmSubgroup(
  { subgroupSize: lanes }: Capabilities,
  spec: GemmSpec,
  { load, blocks, vecs, depth, group, matrices }: SubgroupTile,
): Kernel {
  const share = lanes / matrices; // lanes of a matrix
  const rows = share * load * blocks;
  const tile: Tile = { rows, columns: 4 * share * vecs, load, matrices };
  const inGroups = group > 0;
  const stored = inGroups ? 16 : 4;
  const unit = load === 1 ? 'f32' : `vec${load}f`;
  const held = share * load; // rows that a vector of a holds
  const element = (step: number, row: number) => {
    const [vector, i] = [`a${step}_${Math.floor(row / held)}`, row % held];
    const value = `${vector}${load === 1 ? '' : `[${i % load}]`}`;
    const lane = `${Math.floor(i / load)}u`;
    return matrices === 1
      ? `vec4f(subgroupBroadcast(${value}, ${lane}))`
      : `vec4f(subgroupShuffle(${value}, firstLane + ${lane}))`;
  };
  // The bias of row i, for rows that one load of all lanes holds.
  const biasOf = (i: number) =>
    `biases${Math.floor(i / (4 * lanes))}[${i % 4}], ${Math.floor(i / 4) % lanes}u`;
  const initial = (i: number) => (spec.bias ? `vec4f(subgroupBroadcast(${biasOf(i)}))` : 'vec4f(0)');
  const one = inGroups && spec.aType !== 'f16' ? ' * u.one' : '';
  const loads = unroll(depth, (s) => {
    const inside = s === 0 ? undefined : `in${s}`;
    const a = (q: number) => {
      const value = `loadA(${inside ? `select(pa${q}, pa${q} + ${s}u * u.aPitch, ${inside})` : `pa${q}`})`;
      return `let a${s}_${q} = ${inside ? `select(${unit}(0), ${value}, ${inside})` : value}${one};`;
    };
    const b = (j: number) =>
      `let b${s}_${j} = b[${inside ? `select(pb${j}, pb${j} + ${s}u * u.bPitch, ${inside})` : `pb${j}`}];`;
    return `${inside ? `let ${inside} = k + ${s}u < u.k;` : ''}
    ${unroll(blocks, a)}
    ${unroll(vecs, b)}`;
  });
  const products = inGroups
    ? unroll(rows / group, (g) => orderedRows({ first: g * group, count: group, vecs, depth, element }))
    : unroll(
        rows,
        (i) => `{ ${unroll(depth, (s) => `let t${s} = ${element(s, i)};`)}
    ${unroll(vecs, (j) => {
      const steps = Array.from({ length: depth }, (_, step) => step);
      return `c${i}_${j} = ${steps.reduce((sum, s) => `fma(t${s}, b${s}_${j}, ${sum})`, `c${i}_${j}`)};`;
    })} }`,
      );
  const touch = inGroups ? touchNext(lanes, tile, depth) : TOUCH_LARGE;
  const body = /* wgsl */ `
const ROWS = ${rows}u;
const LANES = ${lanes}u;
const NEVER = ${NEVER}u;
${gemmParts(spec, tile)}
${inGroups ? AFTER : ''}
@compute @workgroup_size(${lanes})
fn main(@builtin(local_invocation_id) local: vec3u, @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u) {
  if (group.z * groups.y + group.y >= u.panels) { return; }
  let part = local.x / ${share}u;
  let firstLane = part * ${share}u;
  let lane = local.x - firstLane;
  let at = placeOf(group, groups${matrices === 1 ? '' : ', part'});
  let lastCol = u.columns - 1u;
  let lastRow = (u.m - 1u) / ${load}u;
  ${unroll(blocks, (q) => `var pa${q} = at.a + min(at.row / ${load}u + ${q * share}u + lane, lastRow);`)}
  ${unroll(
    vecs,
    (j) => `let col${j} = min(at.col + lane + ${j * share}u, lastCol);
  var pb${j} = at.b + col${j};`,
  )}
  ${
    spec.bias
      ? unroll(
          Math.ceil(rows / (4 * lanes)),
          (q) => `let biases${q} = bias[min(at.row / 4u + ${q}u * LANES + local.x, (u.m - 1u) / 4u)];`,
        )
      : ''
  }
  ${unroll(rows, (i) => unroll(vecs, (j) => `var c${i}_${j} = ${initial(i)};`))}
  var touched = 0.0;
  ${touch.begin}
  for (var k = 0u; k < u.k; k += ${depth}u) {
    ${touch.inLoop}
    ${loads}
    ${unroll(blocks, (q) => `pa${q} += ${depth}u * u.aPitch;`)}
    ${unroll(vecs, (j) => `pb${j} += ${depth}u * u.bPitch;`)}
    ${products}
  }
  if (touched == -1.0) { c0_0 = vec4f(touched); } // never true, as it starts at 0, but the compiler cannot know
  let end = min(at.row + ROWS, u.m);
  for (var row = at.row; row < end; row += ${stored}u) {
    let pc = at.c + row * u.cPitch;
    ${unroll(
      stored,
      (i) =>
        `if (row + ${i}u < end) { ${unroll(vecs, (j) => `finish(pc + ${i}u * u.cPitch + col${j}, c${i}_${j});`)} }`,
    )}
    ${unroll(rows - stored, (i) => unroll(vecs, (j) => `c${i}_${j} = c${i + stored}_${j};`))}
  }
}
`;
  return defineKernel({
    name: `gemm.subgroup.${rows}x${tile.columns}x${depth}${inGroups ? '.ordered' : ''}${matrices > 1 ? `.${matrices}` : ''}`,
    enable: ['subgroups'],
    bindings: gemmBindings(spec, tile),
    uniforms: [
      ...gemmUniforms(spec, tile),
      // The kernel compares this with k & 7: 0 touches every 8th row.
      ...(inGroups
        ? [f32('one', 1), u32('zero', 0)]
        : [u32('touch', 4 * spec.k * spec.b.pitch > NEAR_BYTES ? 0 : NEVER)]),
    ],
    body,
    grid: gemmGrid(spec, tile),
  });
}

/** Parts of the kernel that load cache lines before they are needed, one per lane, so that their misses overlap. */
interface Touch {
  readonly begin: string;
  readonly inLoop: string;
}

/** Touches the next 8 rows of a large b, in the workgroup of the first rows of c. */
const TOUCH_LARGE: Touch = {
  begin: `let touchCol = min(at.col + local.x % 4u * 4u, lastCol); // a cache line each
  let touch = select(NEVER, u.touch, at.row == 0u);`,
  inLoop: `if ((k & 7u) == touch) {
      for (var row = select(k + 8u, 0u, k == 0u) + local.x / 4u; row < min(k + 16u, u.k); row += LANES / 4u) {
        touched = max(touched, b[at.b + row * u.bPitch + touchCol].x);
      }
    }`,
};

/** Floats in a cache line. */
const LINE = 16;

/** Touches the lines of both factors that the next iteration loads. */
function touchNext(lanes: number, { rows, columns, load }: Tile, depth: number): Touch {
  const factor = (across: number) => {
    const lines = Math.ceil(across / LINE);
    return { lines, perTouch: Math.max(1, Math.floor(lanes / lines)) };
  };
  const [a, b] = [factor(rows), factor(columns)];
  const next = (k: number) => `min(k + ${depth + k}u`;
  return {
    begin: `let touchA = at.a + min(at.row / ${load}u + local.x % ${a.lines}u * ${LINE / load}u, lastRow);
  let touchB = at.b + min(at.col + local.x % ${b.lines}u * ${LINE / 4}u, lastCol);`,
    inLoop: `${unroll(
      Math.ceil(depth / a.perTouch),
      (i) =>
        `touched = max(touched, loadA(touchA + ${next(i * a.perTouch)} + local.x / ${a.lines}u, u.k - 1u) * u.aPitch)${load === 1 ? '' : '.x'});`,
    )}
    ${unroll(
      Math.ceil(depth / b.perTouch),
      (i) =>
        `touched = max(touched, b[touchB + ${next(i * b.perTouch)} + local.x / ${b.lines}u, u.k - 1u) * u.bPitch].x);`,
    )}`,
  };
}

/**
 * WGSL of `after(c, other)`, which is c, but the compiler must assume that it depends on `other`: u.zero is 0.
 */
const AFTER = /* wgsl */ `
fn after(c: vec4f, other: vec4f) -> vec4f {
  return bitcast<vec4f>(bitcast<vec4u>(c) ^ (bitcast<vec4u>(other) & vec4u(u.zero)));
}
`;

interface OrderedRows {
  readonly first: number;
  readonly count: number;
  readonly vecs: number;
  readonly depth: number;
  /** Returns WGSL of the element of a in a step and row, as a vec4f. */
  readonly element: (step: number, row: number) => string;
}

/** Returns WGSL that adds all steps to the sums of some rows, after those of the rows before them. */
function orderedRows({ first, count, vecs, depth, element }: OrderedRows): string {
  const wait = unroll(count, (r) =>
    unroll(vecs, (j) => `c${first + r}_${j} = after(c${first + r}_${j}, c${first - count + r}_${j});`),
  );
  const sums = unroll(depth, (s) =>
    unroll(
      count,
      (r) => `{ let t = ${element(s, first + r)};
    ${unroll(vecs, (j) => `c${first + r}_${j} = fma(t, b${s}_${j}, c${first + r}_${j});`)} }`,
    ),
  );
  return `${first === 0 ? '' : wait}\n${sums}`;
}
