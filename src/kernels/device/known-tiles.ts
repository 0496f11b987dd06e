// Tiles for devices of known architectures, as data. They are what a search found there; a device that is not in the
// table uses the rules of the kernels until it has searched.

import type { Capabilities } from './device.ts';
import type { ShapeClass } from './shape-class.ts';

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
];

/** What the table has about a device. */
export interface KnownDevice {
  readonly measured: boolean;
  readonly tileOf: (shape: ShapeClass) => string | undefined;
}

const applies = ({ kernel, from = {}, to = {} }: KnownTile, shape: ShapeClass): boolean =>
  kernel === shape.kernel &&
  Object.entries(from).every(([name, least]) => (shape.sizes[name] ?? 0) >= least) &&
  Object.entries(to).every(([name, most]) => (shape.sizes[name] ?? 0) <= most);

/** Returns what the table has about a device, or undefined. */
export function knownDevice({ description }: Capabilities): KnownDevice | undefined {
  const found = ARCHITECTURES.find(({ matches }) => matches.test(description));
  return (
    found && {
      measured: found.measured,
      tileOf: (shape) => found.tiles.find((tile) => applies(tile, shape))?.tile,
    }
  );
}
