// Indexed images: pixels that are numbers of colours.

import { fault } from './failures.ts';

/**
 * Replaces indices by colours. `palette` has 3 bytes per colour, red first. Throws `ItemError` `corrupt` if an index is
 * beyond it; `format` is named in the message.
 */
export function lookedUp(indices: Uint8Array, palette: Uint8Array, format: string): Uint8Array {
  const out = new Uint8Array(indices.length * 3);
  for (let i = 0, to = 0; i < indices.length; i++, to += 3) {
    const entry = indices[i]! * 3;
    if (entry + 3 > palette.length)
      throw fault('corrupt', `${format}: colour ${indices[i]} is beyond the palette`);
    out[to] = palette[entry]!;
    out[to + 1] = palette[entry + 1]!;
    out[to + 2] = palette[entry + 2]!;
  }
  return out;
}

/** Throws `ItemError` `too-large` for more pixels than the limit, and `corrupt` for none. */
export function checkSize(format: string, width: number, height: number, maxPixels: number): void {
  if (width < 1 || height < 1) throw fault('corrupt', `${format}: an image without pixels`);
  if (width * height > maxPixels)
    throw fault(
      'too-large',
      `${format}: ${width}x${height} pixels; at most ${maxPixels} are decoded (--max-pixels, maxPixels)`,
    );
}
