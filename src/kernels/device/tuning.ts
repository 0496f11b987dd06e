// Choosing tiles by measuring. A kernel whose sizes are data has a rule that picks its tile, and candidates: other
// tiles for the same specification. A device may know a better tile for a class of shapes (`Capabilities.tiles`),
// from a search on the device or from the table of a known architecture. This file decides which one is used; it does
// not search.
//
// Every candidate gives the same bytes: it sums each element in the order of k. A tile that changes the order, such
// as split-k, is never a candidate, because then results would depend on timings.

import type { Capabilities } from './device.ts';
import type { Kernel } from './kernel.ts';
import type { ShapeClass } from './shape-class.ts';

/** A kernel whose sizes are data; `Tile` is plain data. */
export interface TiledKernel<Spec, Tile> {
  readonly shapeOf: (spec: Spec) => ShapeClass;
  /** Returns a tile's name, by which a choice is remembered: different names for different tiles. */
  readonly nameOf: (tile: Tile) => string;
  /** Returns the tile that is used if nothing is known about the device. */
  readonly rule: (capabilities: Capabilities, spec: Spec) => Tile;
  /** Returns the tiles that the device can run and that are worth a measurement, most promising first. */
  readonly candidates: (capabilities: Capabilities, spec: Spec) => readonly Tile[];
  readonly kernel: (capabilities: Capabilities, spec: Spec, tile: Tile) => Kernel;
}

/** Returns the kernel with the tile that the device knows to be the best, else with the tile of the rule. */
export function tunedKernel<Spec, Tile>(
  tiled: TiledKernel<Spec, Tile>,
  capabilities: Capabilities,
  spec: Spec,
): Kernel {
  const { shapeOf, nameOf, rule, candidates, kernel } = tiled;
  const shape = shapeOf(spec);
  const usual = rule(capabilities, spec);
  const named = (): Map<string, Tile> =>
    new Map([usual, ...candidates(capabilities, spec)].map((tile) => [nameOf(tile), tile]));
  const known = capabilities.tiles?.get(shape);
  const tile = (known === undefined ? undefined : named().get(known)) ?? usual;
  return {
    ...kernel(capabilities, spec, tile),
    tuning: {
      shape,
      tile: nameOf(tile),
      candidates: () =>
        [...named()].map(([name, other]) => ({ tile: name, kernel: kernel(capabilities, spec, other) })),
    },
  };
}

/** Returns a kernel changed by a function, which also changes the kernels of its other tiles. */
export function changed(kernel: Kernel, change: (kernel: Kernel) => Kernel): Kernel {
  const { tuning, ...plain } = kernel;
  if (!tuning) return change(plain);
  const candidates = () =>
    tuning.candidates().map(({ tile, kernel: other }) => ({ tile, kernel: change(other) }));
  return { ...change(plain), tuning: { ...tuning, candidates } };
}
