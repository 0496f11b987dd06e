// Tells the format of an image file by its first bytes.

import { latin1 } from './bytes.ts';
import { fault } from './failures.ts';

interface Format {
  readonly name: string;
  /** Offset of the mark in the file, and what it may be, one character per byte. */
  readonly at: number;
  readonly marks: readonly string[];
  readonly decoded: boolean;
}

/** Formats other than PNG. Those without a decoder are listed so that messages can name them. */
const FORMATS: readonly Format[] = [
  { name: 'JPEG', at: 0, marks: ['\xff\xd8\xff'], decoded: true },
  { name: 'GIF', at: 0, marks: ['GIF87a', 'GIF89a'], decoded: true },
  { name: 'WebP', at: 8, marks: ['WEBP'], decoded: true },
  { name: 'TIFF', at: 0, marks: ['II*\0', 'MM\0*', 'II+\0', 'MM\0+'], decoded: true },
  { name: 'AVIF', at: 4, marks: ['ftypavif', 'ftypavis', 'ftypmif1', 'ftypmsf1'], decoded: true },
  { name: 'HEIC', at: 4, marks: ['ftyphei', 'ftyphev'], decoded: false },
  { name: 'BMP', at: 0, marks: ['BM'], decoded: false },
  { name: 'JPEG 2000', at: 4, marks: ['jP  '], decoded: false },
  { name: 'JPEG XL', at: 0, marks: ['\xff\x0a', '\0\0\0\x0cJXL '], decoded: false },
];

/**
 * Returns the name of the format of an image file that is not PNG. Throws `ItemError` `not-an-image` for bytes of no
 * known format, and `unsupported-format` for a format that is not decoded.
 */
export function formatOf(bytes: Uint8Array): string {
  const head = latin1(bytes.subarray(0, 32));
  const format = FORMATS.find(({ at, marks }) => marks.some((mark) => head.startsWith(mark, at)));
  if (format === undefined) throw fault('not-an-image', 'its first bytes are those of no image format');
  if (!format.decoded) throw fault('unsupported-format', `${format.name} images are not decoded`);
  return format.name;
}
