// Draws small pictures with characters, in colour for a terminal or in shades of grey for plain text.

import { stripVTControlCharacters } from 'node:util';
import { type Pixels, withChannels } from '../images/pixels.ts';
import { resize } from '../images/resize.ts';

/** Characters from dark to bright. */
const RAMP = ' .:-=+*#%@';

/** A character that fills the upper half of its cell: foreground and background colour two pixels. */
const HALF = '\u2580';

const reset = '\x1b[0m';

/**
 * Draws an image as lines of `columns` characters. A character, which is twice as high as wide, shows two pixels: in
 * colour if `color` is true, otherwise as one of ten shades of grey for their mean.
 */
export function picture(image: Pixels, columns: number, color: boolean): string[] {
  const rows = Math.max(2, 2 * Math.round((columns * image.height) / image.width / 2));
  const { data } = resize(withChannels(image, color ? 3 : 1), columns, rows);
  const lines: string[] = [];
  for (let row = 0; row < rows; row += 2) {
    let line = '';
    for (let column = 0; column < columns; column++) {
      const upper = row * columns + column;
      const lower = upper + columns;
      line += color ? colored(data, upper, lower) : shade((data[upper]! + data[lower]!) / 2);
    }
    lines.push(color ? line + reset : line);
  }
  return lines;
}

const shade = (value: number) => RAMP[Math.min(RAMP.length - 1, Math.floor((value / 256) * RAMP.length))]!;

function colored(data: Uint8Array, upper: number, lower: number): string {
  const rgb = (pixel: number) => data.subarray(pixel * 3, pixel * 3 + 3).join(';');
  return `\x1b[38;2;${rgb(upper)}m\x1b[48;2;${rgb(lower)}m${HALF}`;
}

/** Returns the length of a text without its colour codes. */
const widthOf = (text: string) => stripVTControlCharacters(text).length;

/** Puts blocks of lines side by side, each `width` characters wide. */
export function sideBySide(blocks: readonly (readonly string[])[], width: number): string[] {
  const height = Math.max(0, ...blocks.map((block) => block.length));
  return Array.from({ length: height }, (_, row) =>
    blocks
      .map((block) => block[row] ?? '')
      .map((text) => text + ' '.repeat(Math.max(0, width - widthOf(text))))
      .join('')
      .trimEnd(),
  );
}
