// The rows of a PNG image. Each names the filter that predicted its bytes from their left and upper neighbours.

import { fault } from './failures.ts';

/** One pass over an image: which pixels it has, from (left, top) in steps of (dx, dy), and where its rows are. */
export interface Pass {
  readonly left: number;
  readonly top: number;
  readonly dx: number;
  readonly dy: number;
  readonly columns: number;
  readonly rows: number;
  /** Bytes per row, without the byte before them that names the filter. */
  readonly rowBytes: number;
  /** Where the first row begins in the decompressed data. */
  readonly offset: number;
}

/** Returns whichever of left, above and corner is nearest to left + above - corner; on a tie left, then above. */
function paeth(left: number, above: number, corner: number): number {
  const toLeft = Math.abs(above - corner);
  const toAbove = Math.abs(left - corner);
  const toCorner = Math.abs(left + above - 2 * corner);
  if (toLeft <= toAbove && toLeft <= toCorner) return left;
  return toAbove <= toCorner ? above : corner;
}

/**
 * Undoes the filters of a pass in place; `stride` is the distance in bytes to the pixel on the left. Throws `ItemError`
 * `corrupt` for an unknown filter.
 */
export function unfilter(raw: Uint8Array, { rows, rowBytes, offset }: Pass, stride: number): void {
  for (let row = 0; row < rows; row++) {
    const start = offset + row * (rowBytes + 1) + 1;
    const end = start + rowBytes;
    const up = row === 0 ? 0 : rowBytes + 1; // distance to the byte above; 0 in the first row
    const filter = raw[start - 1]!;
    if (filter === 0) continue;
    if (filter > 4) throw fault('corrupt', `PNG: unknown filter ${filter}`);
    for (let i = start; i < end; i++) {
      const left = i - start >= stride ? raw[i - stride]! : 0;
      const above = up > 0 ? raw[i - up]! : 0;
      if (filter === 1) raw[i]! += left;
      else if (filter === 2) raw[i]! += above;
      else if (filter === 3) raw[i]! += (left + above) >> 1;
      else raw[i]! += paeth(left, above, up > 0 && i - start >= stride ? raw[i - up - stride]! : 0);
    }
  }
}
