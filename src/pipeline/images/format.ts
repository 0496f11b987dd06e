// Tells the format of an image file by its first bytes.

import { latin1 } from './bytes.ts';
import { fault } from './failures.ts';

interface Format {
  readonly name: string;
  /** Offset of the mark in the file, and what it may be, one character per byte. */
  readonly at: number;
  readonly marks: readonly string[];
  /** Why it is not decoded. Undefined if it is. */
  readonly refused?: string;
}

const REFUSED = 'convert it to PNG or JPEG first';

/** Formats other than PNG. Those without a decoder are listed so that messages can name them. */
const FORMATS = [
  { name: 'JPEG', at: 0, marks: ['\xff\xd8\xff'] },
  { name: 'GIF', at: 0, marks: ['GIF87a', 'GIF89a'] },
  { name: 'WebP', at: 8, marks: ['WEBP'] },
  { name: 'TIFF', at: 0, marks: ['II*\0', 'MM\0*', 'II+\0', 'MM\0+'] },
  { name: 'AVIF', at: 4, marks: ['ftypavif', 'ftypavis', 'ftypmif1', 'ftypmsf1'] },
  { name: 'BMP', at: 0, marks: ['BM'] },
  { name: 'PNM', at: 0, marks: ['P7\n', ...['1', '2', '3', '4', '5', '6'].flatMap(pnmMarks)] },
  { name: 'HEIC', at: 4, marks: ['ftyphei', 'ftyphev'], refused: `its codec is patented; ${REFUSED}` },
  { name: 'PFM', at: 0, marks: ['PF\n', 'Pf\n'], refused: 'its floats have no range of black and white' },
  { name: 'JPEG 2000', at: 4, marks: ['jP  '], refused: REFUSED },
  { name: 'JPEG 2000', at: 0, marks: ['\xff\x4f\xff\x51'], refused: REFUSED },
  { name: 'JPEG XL', at: 0, marks: ['\xff\x0a', '\0\0\0\x0cJXL '], refused: REFUSED },
  { name: 'Photoshop', at: 0, marks: ['8BPS'], refused: REFUSED },
  { name: 'OpenEXR', at: 0, marks: ['v/1\x01'], refused: REFUSED },
  { name: 'QOI', at: 0, marks: ['qoif'], refused: REFUSED },
  { name: 'DDS', at: 0, marks: ['DDS |'], refused: REFUSED },
  { name: 'ICO', at: 0, marks: ['\0\0\x01\0'], refused: REFUSED },
] as const satisfies readonly Format[];

/** A format that is decoded and is not PNG. */
type FormatName = Exclude<(typeof FORMATS)[number], { readonly refused: string }>['name'];

/** Returns what a kind of PNM other than PAM begins with: white space or a comment follows its number. */
function pnmMarks(kind: string): string[] {
  return [' ', '\t', '\n', '\r', '#'].map((after) => `P${kind}${after}`);
}

/** Whether a file of many possible codecs (mif1) names that of HEIC, and not AVIF's, among its brands. */
const namesHeic = (head: string) =>
  /^.{4}ftypm(if|sf)1/s.test(head) && /hei[cx]/.test(head) && !/avi[fs]/.test(head);

/**
 * Returns the name of the format of an image file that is not PNG. Throws `ItemError` `not-an-image` for bytes of no
 * known format, and `unsupported-format` for a format that is not decoded.
 */
export function formatOf(bytes: Uint8Array): FormatName {
  const head = latin1(bytes.subarray(0, 64));
  const format = FORMATS.find(({ at, marks }) => marks.some((mark) => head.startsWith(mark, at)));
  if (format === undefined) throw fault('not-an-image', 'its first bytes are those of no image format');
  if (namesHeic(head)) throw fault('unsupported-format', `HEIC images are not decoded: ${REFUSED}`);
  if ('refused' in format)
    throw fault('unsupported-format', `${format.name} images are not decoded: ${format.refused}`);
  return format.name;
}
