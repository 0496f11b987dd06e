// A kernel is pure data: its WGSL text, how its bindings are used, the numbers of its uniform block, and its
// grid. Text and grid can be tested without a GPU; runtime.ts executes them.
//
// The text depends on the family, the tile and the fused prologue or epilogue, but never on the shape. Shapes
// are numbers in the uniform block, so that one compiled pipeline serves every layer: a software driver needs
// up to a second to compile one, and reading a uniform costs no measurable time.

import type { ShapeClass } from './shape-class.ts';

/** How a kernel uses a binding; `accumulate` reads and writes the same elements. */
export type Access = 'read' | 'write' | 'accumulate';

/** One storage binding: its name in WGSL, how it is used, and its element type there (`f32`, `vec4f`, ...). */
export interface Binding {
  readonly name: string;
  readonly access: Access;
  readonly element: string;
}

/** One number of the uniform block. */
export interface Uniform {
  readonly name: string;
  readonly type: 'u32' | 'i32' | 'f32';
  readonly value: number;
}

export type Grid = readonly [x: number, y: number, z: number];

export interface Kernel {
  /** `op.family.variant`, for errors, labels and timings. */
  readonly name: string;
  readonly bindings: readonly Binding[];
  readonly uniforms: readonly Uniform[];
  /** The whole module: `enable` lines, bindings, uniform block `u`, and the body with its `main`. */
  readonly wgsl: string;
  readonly grid: Grid;
  /** Set if the kernel's tile was chosen among several; see tuning.ts. */
  readonly tuning?: Tuning;
}

/** What a search needs to know about a kernel whose tile was chosen. */
export interface Tuning {
  readonly shape: ShapeClass;
  /** The name of the kernel's tile. */
  readonly tile: string;
  /** Returns the names of all tiles that can be chosen, the kernel's own included, most promising first. */
  readonly tiles: () => readonly string[];
  /** Returns the same work with another tile, or undefined if the kernel does not have it. */
  readonly withTile: (tile: string) => Kernel | undefined;
}

/** A WGSL extension that a kernel enables. The device must have been opened with the feature of the same name. */
export type Extension = 'subgroups' | 'f16' | 'chromium_experimental_subgroup_matrix';

/** A kernel without its declarations, which `defineKernel` adds. */
export interface KernelSpec {
  readonly name: string;
  readonly enable?: readonly Extension[];
  /** Rules of the WGSL compiler that are switched off, such as `chromium.subgroup_matrix_uniformity`. */
  readonly unchecked?: readonly string[];
  readonly bindings: readonly Binding[];
  readonly uniforms: readonly Uniform[];
  /** WGSL that refers to the bindings by name and to the numbers as `u.name`; its entry point is `main`. */
  readonly body: string;
  readonly grid: Grid;
}

export const read = (name: string, element = 'f32'): Binding => ({ name, access: 'read', element });
export const write = (name: string, element = 'f32'): Binding => ({ name, access: 'write', element });
export const accumulate = (name: string, element = 'f32'): Binding => ({
  name,
  access: 'accumulate',
  element,
});

export const u32 = (name: string, value: number): Uniform => ({ name, type: 'u32', value });
export const i32 = (name: string, value: number): Uniform => ({ name, type: 'i32', value });
export const f32 = (name: string, value: number): Uniform => ({ name, type: 'f32', value });

/** Joins declarations and body. Bindings are numbered in @group(0) in their order; the uniform block comes last. */
export function defineKernel(spec: KernelSpec): Kernel {
  const { name, bindings, uniforms, grid } = spec;
  const declared = bindings.map(
    ({ name, access, element }, i) =>
      `@group(0) @binding(${i}) var<storage, ${access === 'read' ? 'read' : 'read_write'}> ${name}: array<${element}>;`,
  );
  const block =
    uniforms.length === 0
      ? []
      : [
          `struct Uniforms { ${uniforms.map((v) => `${v.name}: ${v.type}`).join(', ')} }`,
          `@group(0) @binding(${bindings.length}) var<uniform> u: Uniforms;`,
        ];
  const wgsl = [
    ...(spec.unchecked ?? []).map((rule) => `diagnostic(off, ${rule});`),
    ...(spec.enable ?? []).map((e) => `enable ${e};`),
    ...declared,
    ...block,
    spec.body,
  ].join('\n');
  return { name, bindings, uniforms, wgsl, grid };
}

/** Returns the bytes of a kernel's uniform block: 4 per number, padded to a multiple of 16. */
export function uniformBytes(uniforms: readonly Uniform[]): ArrayBuffer {
  const bytes = new ArrayBuffer(Math.ceil(uniforms.length / 4) * 16);
  const view = new DataView(bytes);
  uniforms.forEach(({ type, value }, i) => {
    if (type === 'f32') view.setFloat32(4 * i, value, true);
    else if (type === 'i32') view.setInt32(4 * i, value, true);
    else view.setUint32(4 * i, value, true);
  });
  return bytes;
}

/** The largest number of workgroups WebGPU allows in one dimension. */
export const MAX_GROUPS = 65535;

/**
 * Returns a grid of at least `groups` workgroups in two dimensions; `linearGroup` computes a workgroup's index in WGSL.
 */
export function linearGrid(groups: number): Grid {
  const x = Math.min(Math.max(groups, 1), MAX_GROUPS);
  return [x, Math.ceil(groups / x) || 1, 1];
}

/** WGSL of a workgroup's index in a `linearGrid`. A grid may be too large, so compare the index with the count. */
export const LINEAR_GROUP = /* wgsl */ `
fn linearGroup(group: vec3u, groups: vec3u) -> u32 { return group.y * groups.x + group.x; }
`;

/** Returns WGSL of the head of a `main` with `lanes` invocations in a workgroup of a `linearGrid`, numbered by `local`. */
export const linearMain = (lanes: number): string => /* wgsl */ `@compute @workgroup_size(${lanes}) fn main(
  @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32) {`;

/** Declarations and WGSL that several kernels have in common. */
export interface KernelPart {
  readonly bindings: readonly Binding[];
  readonly uniforms: readonly Uniform[];
  readonly wgsl: string;
}

/** Divides and rounds up. */
export const ceilDiv = (a: number, b: number): number => Math.ceil(a / b);

/** Rounds up to a multiple of 4, so that rows start on vec4s. */
export const pad4 = (value: number): number => ceilDiv(value, 4) * 4;
