// Image files from elsewhere, against Pillow: each is decoded to the pixels of Pillow, or refused. `npm run test:all -- images`
// runs it on the folders that IMAGE_CORPUS names, which test/golden/image-corpus.py makes (docs/images.md says how).

import { readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { expect, test } from 'vitest';
import { itemErrorOf } from '../src/pipeline/images/failures.ts';
import { decodeImage } from '../src/pipeline/node/decode.ts';

/** What Pillow made of a file: the name of a file with its pixels, or why it refused. */
type Entry =
  | { readonly refused: string }
  | { readonly raw: string; readonly width: number; readonly height: number; readonly channels: 1 | 3 };

/** Files whose pixels differ from Pillow's by a rule that docs/images.md gives. */
const BY_RULE: Readonly<Record<string, RegExp>> = {
  'AVIF: chroma is interpolated, and XMP does not turn the image': /\.avif$/,
  'TIFF: alpha of 16 bits that colours are multiplied by is divided in 16 bits': /16bit_RGBa\.tiff$/,
};

/** The largest difference of an 8-bit sample that is not one. */
const TOLERANCE = 2;

const OUTPUTS = (process.env.IMAGE_CORPUS ?? '').split(delimiter).filter(Boolean);

/** Returns the largest difference between an image and raw pixels, or what differs in kind. */
async function differenceOf(folder: string, name: string, output: string, entry: Entry): Promise<string> {
  try {
    const image = await decodeImage(readFileSync(join(folder, name)));
    if ('refused' in entry) return 'decoded';
    const { width, height, channels } = entry;
    if (image.width !== width || image.height !== height)
      return `${image.width}x${image.height} instead of ${width}x${height}`;
    const expected = readFileSync(join(output, entry.raw));
    let worst = 0;
    for (let i = 0; i < width * height; i++)
      for (let c = 0; c < 3; c++) {
        const a = image.data[i * image.channels + (image.channels === 1 ? 0 : c)]!;
        const b = expected[i * channels + (channels === 1 ? 0 : c)]!;
        worst = Math.max(worst, Math.abs(a - b));
      }
    return worst <= TOLERANCE ? '' : `differs by ${worst}`;
  } catch (error) {
    return `refused: ${itemErrorOf(error).code}`;
  }
}

test('images from elsewhere have the pixels of Pillow or are refused', { timeout: 1_800_000 }, async ({
  skip,
}) => {
  skip(OUTPUTS.length === 0, 'set IMAGE_CORPUS to the folders that test/golden/image-corpus.py wrote');
  const unexpected: string[] = [];
  for (const output of OUTPUTS) {
    const { folder, images } = JSON.parse(readFileSync(join(output, 'index.json'), 'utf8')) as {
      readonly folder: string;
      readonly images: Readonly<Record<string, Entry>>;
    };
    const counts = new Map<string, number>();
    for (const [name, entry] of Object.entries(images)) {
      const difference = await differenceOf(folder, name, output, entry);
      const rule = Object.keys(BY_RULE).find((key) => BY_RULE[key]!.test(name));
      const isDifferent = /^differs|instead/.test(difference);
      if (isDifferent && !rule) unexpected.push(`${name} ${difference}`);
      const kind = isDifferent ? (rule ?? 'differs') : difference || 'the same pixels';
      counts.set(kind, (counts.get(kind) ?? 0) + 1);
    }
    console.log(`${output}: ${[...counts].map(([kind, count]) => `${count} ${kind}`).join('; ')}`);
  }
  expect(unexpected).toEqual([]);
});
