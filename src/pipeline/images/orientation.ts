// The orientation that a camera noted in EXIF data: how to turn the stored image so that a person sees it upright.

import type { Pixels } from './pixels.ts';

/** EXIF's numbers: 1 is upright, 2 to 4 are mirrored or upside down, and 5 to 8 have their sides exchanged. */
export type Orientation = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8;

const ORIENTATION_TAG = 0x112;

/** Reads the orientation from EXIF data, which is laid out as a TIFF file. Returns 1 if it has none that can be read. */
export function orientationOf(exif: Uint8Array): Orientation {
  const view = new DataView(exif.buffer, exif.byteOffset, exif.byteLength);
  if (exif.length < 14) return 1;
  const little = view.getUint16(0) === 0x4949;
  const start = view.getUint32(4, little);
  if (start + 2 > exif.length) return 1;
  const entries = view.getUint16(start, little);
  for (let i = 0, at = start + 2; i < entries && at + 12 <= exif.length; i++, at += 12) {
    if (view.getUint16(at, little) !== ORIENTATION_TAG) continue;
    const value = view.getUint16(at + 8, little);
    return value >= 1 && value <= 8 ? (value as Orientation) : 1;
  }
  return 1;
}

/** Turns and mirrors an image that is stored in an orientation so that it is upright. */
export function upright(image: Pixels, orientation: Orientation): Pixels {
  if (orientation === 1) return image;
  const { width: w, height: h, channels } = image;
  const swaps = orientation >= 5;
  const [width, height] = swaps ? [h, w] : [w, h];
  // Where column 0 of row 0 comes from, and how far the source moves with each column and row, in pixels.
  const right = [2, 3, 7, 8].includes(orientation); // the source begins in its last column
  const bottom = [3, 4, 6, 7].includes(orientation); // ... in its last row
  const start = (right ? w - 1 : 0) + (bottom ? h - 1 : 0) * w;
  const [stepX, stepY] = [right ? -1 : 1, bottom ? -w : w];
  const [perColumn, perRow] = swaps ? [stepY, stepX] : [stepX, stepY];
  const data = new Uint8Array(image.data.length);
  for (let y = 0, to = 0; y < height; y++)
    for (let x = 0; x < width; x++, to += channels) {
      const from = (start + y * perRow + x * perColumn) * channels;
      for (let c = 0; c < channels; c++) data[to + c] = image.data[from + c]!;
    }
  return { ...image, width, height, data };
}
