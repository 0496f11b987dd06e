// Rewrites a kernel on matrix units so that it runs on a device without them: each load only records the address of the
// matrix, and each product reads and sums the elements from there. So the addresses can be tested on a software driver,
// for units of any size and subgroups of any width.

import type { Kernel } from '../../src/kernels/device/kernel.ts';
import type { MatrixUnit } from '../../src/kernels/device/matrix-units.ts';

/** f16 values of an element of an array in workgroup memory, and WGSL of one and of four of them. */
interface Halves {
  readonly load: number;
  readonly one: (name: string, i: string) => string;
  /** `i` is a multiple of 4. */
  readonly four: (name: string, i: string) => string;
}

const unpacked = (words: string): string => `vec4f(unpack2x16float(${words}.x), unpack2x16float(${words}.y))`;
const inWords = (load: number, four: Halves['four']): Halves => ({
  load,
  one: (name, i) => `unpack2x16float(${name}[${i} / ${load}u][${i} / 2u % ${load / 2}u])[${i} % 2u]`,
  four,
});

// Vectors of four and constant indices, because a software driver compiles arrays and loops in each product for minutes.
const HALVES: Readonly<Record<string, Halves>> = {
  f16: {
    load: 1,
    one: (name, i) => `f32(${name}[${i}])`,
    four: (name, i) =>
      `vec4f(f32(${name}[${i}]), f32(${name}[${i} + 1u]), f32(${name}[${i} + 2u]), f32(${name}[${i} + 3u]))`,
  },
  'vec2<f16>': {
    load: 2,
    one: (name, i) => `f32(${name}[${i} / 2u][${i} % 2u])`,
    four: (name, i) => `vec4f(vec2f(${name}[${i} / 2u]), vec2f(${name}[${i} / 2u + 1u]))`,
  },
  u32: {
    load: 2,
    one: (name, i) => `unpack2x16float(${name}[${i} / 2u])[${i} % 2u]`,
    four: (name, i) => `vec4f(unpack2x16float(${name}[${i} / 2u]), unpack2x16float(${name}[${i} / 2u + 1u]))`,
  },
  vec2u: inWords(4, (name, i) => unpacked(`${name}[${i} / 4u]`)),
  vec4u: inWords(8, (name, i) =>
    unpacked(`select(${name}[${i} / 8u].xy, ${name}[${i} / 8u].zw, (${i} & 4u) != 0u)`),
  ),
};

const ARGUMENT = '([^,;]*)';

/** Returns the same kernel in plain WGSL; a subgroup has `lanes` lanes, which share the elements of a result. */
export function emulated(kernel: Kernel, { M, N, K }: MatrixUnit, lanes: number): Kernel {
  const each = (M * N) / lanes;
  if (each % 4 !== 0)
    throw new Error(`emulation: expected a multiple of 4 elements per lane, got ${each} of ${M}x${N}`);
  const types = new Map(
    [...kernel.wgsl.matchAll(/var<workgroup> (\w+): array<(.*), \d+>;/g)].map(([, name, type]) => [
      name!,
      type!,
    ]),
  );
  const halvesOf = (name: string): Halves => {
    const halves = HALVES[types.get(name) ?? ''];
    if (!halves) throw new Error(`emulation: expected an array of f16 values, got ${name}`);
    return halves;
  };
  /** The array that each matrix is loaded from, and whether its rows are rows of the array. */
  const sources = new Map<string, { readonly array: string; readonly byRows: boolean }>();
  const pairs = new Map<string, string>();
  const parts = Array.from({ length: each / 4 }, (_, v) => v);
  const rowOf = `lane * ${each}u / ${N}u`;
  const columnOf = `lane * ${each}u % ${N}u`;

  const multiply = (left: string, right: string): string => {
    const a = sources.get(left);
    const b = sources.get(right);
    if (!a || !b) throw new Error(`emulation: expected loads of ${left} and ${right}, got none`);
    const name = `multiply_${a.array}_${b.array}_${a.byRows}`;
    const [inA, inB] = [halvesOf(a.array), halvesOf(b.array)];
    pairs.set(
      name,
      /* wgsl */ `
fn ${name}(a: vec2u, b: vec2u, sum: Sum, lane: u32) -> Sum {
  var next = sum;
  let r = ${rowOf};
  let s = ${columnOf};
  for (var k = 0u; k < ${K}u; k++) {
    let i = ${a.byRows ? `(a.x + r * a.y) * ${inA.load}u + k` : `(a.x + k * a.y) * ${inA.load}u + r`};
    let p = ${inA.one(a.array, 'i')};
    ${parts
      .map(
        (v) =>
          `{ let j = (b.x + k * b.y) * ${inB.load}u + s + ${4 * v}u; next[${v}] += p * ${inB.four(b.array, 'j')}; }`,
      )
      .join('\n    ')}
  }
  return next;
}`,
    );
    return name;
  };
  const moved = new Set<string>();
  const move = (array: string): string => {
    if (types.get(array) !== 'f32')
      throw new Error(`emulation: expected results in workgroup memory in f32, got ${array}`);
    moved.add(array);
    return array;
  };
  const result = `subgroup_matrix_result<f32, ${N}, ${M}>`;
  const left = `subgroup_matrix_left<f16, ${K}, ${M}>`;
  const right = `subgroup_matrix_right<f16, ${N}, ${K}>`;
  const wgsl = kernel.wgsl
    .replace(/^diagnostic.*$/gm, '')
    .replace(/^enable (?!f16).*$/gm, '')
    .replaceAll('subgroupBroadcastFirst(', '(')
    .replaceAll(`: ${result};`, ': Sum;')
    .replaceAll(`= ${result}();`, '= Sum();')
    .replace(
      new RegExp(
        `let (\\w+) = subgroupMatrixLoad<(${left}|${right}), (row|col)_major>\\(&(\\w+), ${ARGUMENT}, ${ARGUMENT}\\);`,
        'g',
      ),
      (_, name: string, type: string, major: string, array: string, at: string, stride: string) => {
        if (type === right && major !== 'row') throw new Error('emulation: expected right factors by rows');
        sources.set(name, { array, byRows: major === 'row' });
        return `let ${name} = vec2u(${at}, ${stride});`;
      },
    )
    .replace(
      /subgroupMatrixMultiplyAccumulate\((\w+), (\w+), (\w+)\)/g,
      (_, a: string, b: string, sum: string) => `${multiply(a, b)}(${a}, ${b}, ${sum}, lane)`,
    )
    .replace(
      new RegExp(`subgroupMatrixLoad<${result}, row_major>\\(&(\\w+), ${ARGUMENT}, ${ARGUMENT}\\);`, 'g'),
      (_, array: string, at: string, stride: string) => `fetch_${move(array)}(${at}, ${stride}, lane);`,
    )
    .replace(
      new RegExp(`subgroupMatrixStore<row_major>\\(&(\\w+), ${ARGUMENT}, (\\w+), ${ARGUMENT}\\);`, 'g'),
      (_, array: string, at: string, sum: string, stride: string) =>
        `keep_${move(array)}(${at}, ${stride}, ${sum}, lane);`,
    );
  const first = `at + ${rowOf} * stride + ${columnOf}`;
  const moves = [...moved].map(
    (array) => /* wgsl */ `
fn keep_${array}(at: u32, stride: u32, sum: Sum, lane: u32) {
  let first = ${first};
  ${parts.flatMap((v) => [0, 1, 2, 3].map((e) => `${array}[first + ${4 * v + e}u] = sum[${v}][${e}];`)).join(' ')}
}
fn fetch_${array}(at: u32, stride: u32, lane: u32) -> Sum {
  let first = ${first};
  return Sum(${parts.map((v) => `vec4f(${[0, 1, 2, 3].map((e) => `${array}[first + ${4 * v + e}u]`).join(', ')})`).join(', ')});
}`,
  );
  if (pairs.size === 0 || /subgroup(Matrix|_matrix)/.test(wgsl))
    throw new Error('emulation: expected products, and no matrix operations after rewriting');
  const helpers = [`alias Sum = array<vec4f, ${each / 4}>;`, ...pairs.values(), ...moves].join('\n');
  return {
    ...kernel,
    name: `${kernel.name}.emulated`,
    wgsl: wgsl.replace('@compute', `${helpers}\n@compute`),
  };
}
