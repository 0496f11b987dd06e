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
  /** A specification whose kernels stand for all of them where their text is compared with that of other versions. */
  readonly example: Spec;
}

/** Returns a hash of a text: FNV-1a of 32 bits, as 8 hexadecimal digits. */
function hashOf(text: string): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, '0');
}

const versions = new WeakMap<object, Map<string, string>>();

/** Returns a hash of the text of a kernel with each of its tiles, computed once per kind of device. */
function versionOf<Spec, Tile>(tiled: TiledKernel<Spec, Tile>, capabilities: Capabilities): string {
  const known = versions.get(tiled) ?? new Map<string, string>();
  versions.set(tiled, known);
  const { subgroupSize, subgroupMaxSize, matrix, f16, maxInvocations, workgroupBytes, software } =
    capabilities;
  const subgroups = [subgroupSize, subgroupMaxSize, JSON.stringify(matrix)];
  const key = [...subgroups, f16, maxInvocations, workgroupBytes, software].join();
  let version = known.get(key);
  if (version === undefined) {
    const tiles = [tiled.rule(capabilities, tiled.example), ...tiled.candidates(capabilities, tiled.example)];
    version = hashOf(tiles.map((tile) => tiled.kernel(capabilities, tiled.example, tile).wgsl).join());
    known.set(key, version);
  }
  return version;
}

/** Returns the kernel with the tile that the device knows to be the best, else with the tile of the rule. */
export function tunedKernel<Spec, Tile>(
  tiled: TiledKernel<Spec, Tile>,
  capabilities: Capabilities,
  spec: Spec,
): Kernel {
  const { shapeOf, nameOf, rule, candidates, kernel } = tiled;
  const shape = { ...shapeOf(spec), version: versionOf(tiled, capabilities) };
  const usual = rule(capabilities, spec);
  const named = (): Map<string, Tile> =>
    new Map([usual, ...candidates(capabilities, spec)].map((tile) => [nameOf(tile), tile]));
  const known = capabilities.tiles?.get(shape);
  const tile = (known === undefined ? undefined : named().get(known)) ?? usual;
  const made = (chosen: Tile): Kernel => ({
    ...kernel(capabilities, spec, chosen),
    tuning: {
      shape,
      tile: nameOf(chosen),
      tiles: () => [...named().keys()],
      withTile: (name) => {
        const other = named().get(name);
        return other && made(other);
      },
    },
  });
  return made(tile);
}

/** Returns a kernel changed by a function, which also changes the kernels of its other tiles. */
export function changed(kernel: Kernel, change: (kernel: Kernel) => Kernel): Kernel {
  const { tuning, ...plain } = kernel;
  if (!tuning) return change(plain);
  const withTile = (tile: string) => {
    const other = tuning.withTile(tile);
    return other && changed(other, change);
  };
  return { ...change(plain), tuning: { ...tuning, withTile } };
}
