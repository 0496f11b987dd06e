// Tiles for devices of known architectures, as data. They are what a search found there; a device that is not in the
// table uses the rules of the kernels until it has searched.

import type { ShapeClass, Tiles } from './shape-class.ts';

/** A tile, and the classes of shapes for which it is the best. */
interface KnownTile {
  readonly kernel: string;
  /** Sizes that a class must have at least, and at most, by name. */
  readonly from?: Readonly<Record<string, number>>;
  readonly to?: Readonly<Record<string, number>>;
  readonly tile: string;
}

interface Architecture {
  /** Matches the adapter's description. */
  readonly matches: RegExp;
  /** Whether the tiles were measured on a device of this architecture, so that a search is not necessary. */
  readonly measured: boolean;
  /** The first that applies counts. */
  readonly tiles: readonly KnownTile[];
}

const ARCHITECTURES: readonly Architecture[] = [
  // The rules of the subgroup kernels were measured on this driver.
  { matches: /llvmpipe: Mesa 25\./, measured: true, tiles: [] },
  // With 16 lanes the rule takes tiles that were measured on this driver.
  { matches: /512-bits.* llvmpipe: Mesa 26\./, measured: true, tiles: [] },
  // Compiles to less code, so that more values of k fit into the instruction cache. Of 53 classes of a network of Stable
  // Diffusion's shape a search changed 26, 17 of them to depth 4 with the columns of the rule; the whole network became
  // 1.095 times as fast (`npm run bench -- tune --model sd-small --batch 4` before this entry, Mesa 26.2.6, 2 cores).
  {
    matches: /llvmpipe: Mesa 26\./,
    measured: true,
    tiles: [
      { kernel: 'gemm.subgroup', to: { m: 16 }, from: { columns: 128 }, tile: 'load2.vecs4.depth4' },
      // Heads of 40 channels: 69 instead of 46 GFLOP/s.
      {
        kernel: 'gemm.subgroup',
        from: { m: 48, columns: 48 },
        to: { m: 48 },
        tile: 'load1.vecs2.depth2.blocks5',
      },
      { kernel: 'gemm.subgroup', from: { m: 24, columns: 48 }, tile: 'load4.vecs2.depth4' },
    ],
  },
  // From the search in bench/results/nvidia-h200-tiles.json, which timed the products without epilogue and bounds checks.
  {
    matches: /^nvidia /,
    measured: false,
    tiles: [
      { kernel: 'gemm.tile', from: { m: 2048, columns: 4096 }, tile: '128x128x16.8x16.1buf.unrolled' },
      {
        kernel: 'gemm.tile',
        from: { m: 257, columns: 8192 },
        to: { k: 512 },
        tile: '128x128x16.8x16.1buf.unrolled',
      },
    ],
  },
  // Not measured. 8 x 8 sums and their factors would fill the registers of an invocation on Intel's GPUs, and Apple's
  // run more invocations if each needs fewer. AMD's have room for the tiles of the rule.
  {
    matches: /^(apple|intel) /,
    measured: false,
    tiles: [{ kernel: 'gemm.tile', from: { m: 33 }, tile: '64x64x16.4x8.1buf.unrolled' }],
  },
];

/** What the table has about a device. */
export interface KnownDevice {
  readonly measured: boolean;
  readonly tiles: Tiles;
}

const applies = ({ kernel, from = {}, to = {} }: KnownTile, shape: ShapeClass): boolean =>
  kernel === shape.kernel &&
  Object.entries(from).every(([name, least]) => (shape.sizes[name] ?? 0) >= least) &&
  Object.entries(to).every(([name, most]) => (shape.sizes[name] ?? 0) <= most);

/** Returns what the table has about a device, given its description, or undefined. */
export function knownDevice(description: string): KnownDevice | undefined {
  const found = ARCHITECTURES.find(({ matches }) => matches.test(description));
  return (
    found && {
      measured: found.measured,
      tiles: { get: (shape) => found.tiles.find((tile) => applies(tile, shape))?.tile },
    }
  );
}
