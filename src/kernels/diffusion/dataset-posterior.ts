// The posterior over the images of a data set, given a noised image: a softmax over rows of products with all images.

import type { Capabilities } from '../device/device.ts';
import { ceilDiv, LINEAR_GROUP, linearGrid, read, u32, write } from '../device/kernel.ts';
import { type Routine, single } from '../device/routine.ts';
import { pitch, type Shape } from '../device/tensor.ts';

/** vec4s of columns per workgroup, and invocations that share a column; each processes every 16th row. */
const WIDTH = 4;
const MEMBERS = 16;

interface PosteriorOptions {
  /** Products with images, [rows, n, 1, 1]. */
  readonly x: Shape;
  /** Rows of `scales`. */
  readonly levels: number;
}

const uniformsOf = ({ x, levels }: PosteriorOptions) => {
  const columns = pitch(x) / 4;
  return {
    columns,
    uniforms: [
      u32('columns', columns),
      u32('rows', x[0]),
      u32('lastSample', x[1] - 1),
      u32('lastLevel', levels - 1),
    ],
  };
};

/** WGSL before the body: an invocation's column, row offset and scale. */
const HEAD = /* wgsl */ `${LINEAR_GROUP}
var<workgroup> parts: array<array<vec4f, ${WIDTH}>, ${MEMBERS}>;
fn scaleOf(column: u32) -> vec4f {
  let at = min(vec4u(4 * column) + vec4u(0, 1, 2, 3), vec4u(u.lastSample));
  let l = min(vec4u(level[at.x], level[at.y], level[at.z], level[at.w]), vec4u(u.lastLevel));
  return vec4f(scales[l.x], scales[l.y], scales[l.z], scales[l.w]);
}
@compute @workgroup_size(${WIDTH}, ${MEMBERS})
fn main(@builtin(local_invocation_id) local: vec3u, @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let lane = local.x;
  let member = local.y;
  // Invocations past the last column recompute it, write nothing, and still reach the barriers.
  let wanted = linearGroup(group, groups) * ${WIDTH}u + lane;
  let column = min(wanted, u.columns - 1u);
  let here = wanted == column;
  let scale = scaleOf(column);`;

/** Returns WGSL that combines a value over the members of a column, always in their order. */
const combined = (value: string, combine: (a: string, b: string) => string) => /* wgsl */ `
  parts[member][lane] = ${value};
  workgroupBarrier();
  ${value} = parts[0][lane];
  for (var m = 1u; m < ${MEMBERS}u; m++) { ${value} = ${combine(value, 'parts[m][lane]')}; }
  workgroupBarrier();`;

/**
 * y[i, n] = exp(s[i, n]) / Σ_j exp(s[j, n]) with s = scales[level[n]] (x[i, n] - half[i]), over all rows i,
 * in f32. With x the products of a noised image with images x_i, half = |x_i|²/2 and scales = 1 / sigma²,
 * these are the probabilities that x_t = x_i + sigma eps came from x_i, under a uniform prior.
 * Operands x [rows, n, 1, 1], half [rows], level [n] u32, scales [levels], y [rows, n, 1, 1].
 */
export function posterior(_: Capabilities, options: PosteriorOptions): Routine {
  const { columns, uniforms } = uniformsOf(options);
  return single({
    name: 'posterior',
    bindings: [read('x', 'vec4f'), read('half'), read('level', 'u32'), read('scales'), write('y', 'vec4f')],
    uniforms,
    body: /* wgsl */ `${HEAD}
  var top = vec4f(-3e38);
  for (var i = member; i < u.rows; i += ${MEMBERS}u) {
    top = max(top, scale * (x[i * u.columns + column] - half[i]));
  }
  ${combined('top', (a, b) => `max(${a}, ${b})`)}
  var sum = vec4f(0);
  for (var i = member; i < u.rows; i += ${MEMBERS}u) {
    sum += exp(scale * (x[i * u.columns + column] - half[i]) - top);
  }
  ${combined('sum', (a, b) => `${a} + ${b}`)}
  if (!here) { return; }
  for (var i = member; i < u.rows; i += ${MEMBERS}u) {
    y[i * u.columns + column] = exp(scale * (x[i * u.columns + column] - half[i]) - top) / sum;
  }
}`,
    grid: linearGrid(ceilDiv(columns, WIDTH)),
  });
}

/**
 * The gradient of `posterior` with respect to x: dx[i, n] = scale p[i, n] (dy[i, n] - Σ_j p[j, n] dy[j, n]).
 * Operands p and dy [rows, n, 1, 1], level [n] u32, scales [levels], y = dx [rows, n, 1, 1].
 */
export function posteriorGradient(_: Capabilities, options: PosteriorOptions): Routine {
  const { columns, uniforms } = uniformsOf(options);
  return single({
    name: 'posteriorGradient',
    bindings: [
      read('p', 'vec4f'),
      read('dy', 'vec4f'),
      read('level', 'u32'),
      read('scales'),
      write('y', 'vec4f'),
    ],
    uniforms,
    body: /* wgsl */ `${HEAD}
  var sum = vec4f(0);
  for (var i = member; i < u.rows; i += ${MEMBERS}u) {
    sum += p[i * u.columns + column] * dy[i * u.columns + column];
  }
  ${combined('sum', (a, b) => `${a} + ${b}`)}
  if (!here) { return; }
  for (var i = member; i < u.rows; i += ${MEMBERS}u) {
    let at = i * u.columns + column;
    y[at] = scale * p[at] * (dy[at] - sum);
  }
}`,
    grid: linearGrid(ceilDiv(columns, WIDTH)),
  });
}
