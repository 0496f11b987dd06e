// Converts printing colours to RGB.

/**
 * Converts CMYK of `samples` (4 or more) bytes per pixel, in which 255 is full ink, to RGB as Pillow's `convert('RGB')`
 * does: each ink darkens its colour, and black darkens all, whatever the profile says that these inks look like.
 */
export function cmykToRgb(data: Uint8Array, samples: number): Uint8Array {
  const count = data.length / samples;
  const out = new Uint8Array(count * 3);
  for (let i = 0, from = 0, to = 0; i < count; i++, from += samples) {
    const paper = 255 - data[from + 3]!;
    for (let c = 0; c < 3; c++) {
      const product = data[from + c]! * paper + 128;
      out[to++] = paper - (((product >> 8) + product) >> 8);
    }
  }
  return out;
}
