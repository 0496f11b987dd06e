// The kernel families, and how walks over memory differ between them. Every folder of kernels has one such
// table (a `Record` over `Family`), so that a new family does not compile before each folder has decided for it.

/**
 * How a family's kernels share operands:
 * - `subgroup`: a workgroup is one subgroup, whose lanes broadcast operands to each other without workgroup
 *   memory; for software adapters.
 * - `tile`: tiles staged in workgroup memory; for GPUs.
 * - `plain`: registers only, no optional feature, WebGPU's default limits. It runs everywhere, and the tests
 *   compare the others with it.
 */
export type Family = 'subgroup' | 'tile' | 'plain';

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
};

/** Whether a device with subgroups of a fixed number of lanes (0 if it is not fixed) can run a family. */
export const RUNS_ON: Readonly<Record<Family, (subgroupSize: number) => boolean>> = {
  subgroup: (lanes) => lanes >= 4 && lanes <= 16,
  tile: () => true,
  plain: () => true,
};

/** The names of all families. */
export const FAMILIES = Object.keys(RUNS_ON) as readonly Family[];
