// The kernel families, and how walks over memory differ between them. Every folder of kernels has one such
// table (a `Record` over `Family`), so that a new family does not compile before each folder has decided for it.

import type { MatrixUnit } from './matrix-units.ts';

/**
 * How a family's kernels share operands:
 * - `subgroup`: a workgroup is one subgroup, whose lanes broadcast operands to each other without workgroup
 *   memory; for software adapters.
 * - `tile`: tiles staged in workgroup memory; for GPUs.
 * - `matrix`: products on matrix units (`Capabilities.matrix`), everything else as `tile`. Products round their operands
 *   to f16 and sum in f32, so only plans in f16 use this family (`forPrecision`).
 * - `plain`: registers only, no optional feature, WebGPU's default limits. It runs everywhere, and the tests
 *   compare the others with it.
 */
export type Family = 'subgroup' | 'tile' | 'matrix' | 'plain';

/** All families, in the order of reports. */
export const FAMILIES: readonly Family[] = ['plain', 'tile', 'subgroup', 'matrix'];

/** How a family's kernels divide walks over memory among workgroups and invocations; see indexing.ts. */
interface WalkVariant {
  /** Invocations of a workgroup that walks over independent elements. */
  readonly lanes: number;
  /** The most elements of one workgroup. */
  readonly longest: number;
  /** Invocations that share an item (a row of a sample) of `length` elements. */
  readonly team: (length: number) => number;
  /** Items of one workgroup. */
  readonly items: number;
}

const SOFTWARE: WalkVariant = { lanes: 8, longest: 2048, team: () => 1, items: 8 };
const GPU: WalkVariant = { lanes: 64, longest: 64, team: (length) => (length < 1024 ? 64 : 256), items: 1 };

export const WALKS: Readonly<Record<Family, WalkVariant>> = {
  subgroup: SOFTWARE,
  plain: SOFTWARE,
  tile: GPU,
  matrix: GPU,
};

/** What decides which families a device can run. */
interface SubgroupFeatures {
  /** Lanes of a subgroup if that number is fixed, else 0. */
  readonly subgroupSize: number;
  readonly matrix?: readonly MatrixUnit[];
}

/** Whether a device can run a family. */
export const RUNS_ON: Readonly<Record<Family, (device: SubgroupFeatures) => boolean>> = {
  subgroup: ({ subgroupSize }) => subgroupSize >= 4 && subgroupSize <= 16,
  tile: () => true,
  matrix: ({ matrix = [] }) => matrix.length > 0,
  plain: () => true,
};

/** What a device needs for a family that it cannot run. */
export const NEEDS: Readonly<Record<Family, string>> = {
  subgroup: 'subgroups of a fixed 4 to 16 lanes',
  tile: 'nothing',
  matrix: 'matrix units with f16 factors and f32 sums',
  plain: 'nothing',
};

/**
 * Returns the capabilities for kernels without matrix units: those of the `tile` family on a `matrix` device. Kernels
 * that matrix units do not reach, or that need products in f32, choose with these.
 */
export const withoutMatrix = <C extends { readonly family: Family }>(capabilities: C): C =>
  capabilities.family === 'matrix' ? { ...capabilities, family: 'tile' } : capabilities;
