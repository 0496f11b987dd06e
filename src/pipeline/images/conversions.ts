// Summarises in a few sentences how images were changed to fit a model. A 12-megapixel colour photo that became 28x28
// grey pixels still gets a label, and the user should know what that label is based on.

import type { Model } from '../../graph/model.ts';
import type { Pixels } from './pixels.ts';

/**
 * A 16-bit image whose largest high byte is less than this fills a quarter of the range or less, and is reported: values of
 * 12-bit and 14-bit cameras look almost black.
 */
const DARK = 64;

type Size = Pick<Pixels, 'width' | 'height'>;

/** What `conversions` has to know about a decoded image. */
export interface ImageSummary extends Size {
  readonly channels: 1 | 3;
  /** The largest high byte of an image with 16 bits per sample. */
  readonly brightest?: number;
}

/** The number of some images, and the sizes of the first, the smallest and the largest. `same`: they all have one size. */
interface Sizes {
  readonly count: number;
  readonly first: Size;
  readonly same: boolean;
  readonly smallest: Size;
  readonly largest: Size;
}

const area = ({ width, height }: Size) => width * height;

function withImage(sizes: Sizes | undefined, { width, height }: Size): Sizes {
  const size = { width, height };
  if (!sizes) return { count: 1, first: size, same: true, smallest: size, largest: size };
  const { count, first, same, smallest, largest } = sizes;
  return {
    count: count + 1,
    first,
    same: same && first.width === width && first.height === height,
    smallest: area(smallest) <= area(size) ? smallest : size,
    largest: area(largest) >= area(size) ? largest : size,
  };
}

const sizeText = ({ width, height }: Size) => `${width}x${height}`;

/** Returns the common size of some images, the approximate size if they are similar, or else the extremes. */
function sizesText({ first, same, smallest, largest }: Sizes): string {
  if (same) return sizeText(first);
  if (area(largest) >= 4 * area(smallest)) return `${sizeText(smallest)} to ${sizeText(largest)}`;
  const rounded = (side: number) => Number(side.toPrecision(2));
  return `about ${sizeText({ width: rounded(first.width), height: rounded(first.height) })}`;
}

/** Returns the largest sample of an image. */
const largestOf = (data: Uint8Array): number => data.reduce((most, value) => Math.max(most, value), 0);

/** Summarises a decoded image. */
export function summaryOf({ width, height, channels, bitDepth, data }: Pixels): ImageSummary {
  const size = { width, height, channels };
  return bitDepth === undefined ? size : { ...size, brightest: largestOf(data) };
}

const images = (count: number, kind: string) =>
  `${count.toLocaleString('en-US')} ${kind} image${count === 1 ? '' : 's'}`;

/** A running summary of conversions. */
export interface Conversions {
  /** Counts a decoded image. Pass it to `loadImages` as `onSummary`. */
  readonly add: (image: ImageSummary | Pixels) => void;
  /** Returns one sentence for each kind of conversion so far, such as "12 colour images of about 4000x3000 became 28x28 grey". */
  readonly sentences: () => string[];
}

/**
 * Summarises how images are changed to fit a model's input shape [channels, height, width].
 *
 * @example
 * import { conversions, findImages, loadImages } from 'diffclass-stream';
 * const done = conversions([1, 28, 28]);
 * for await (const image of loadImages(findImages(['photos']), [1, 28, 28], { onSummary: done.add })) console.log(image.path);
 * for (const sentence of done.sentences()) console.error(sentence);
 */
export function conversions([channels, height, width]: Model['inputShape']): Conversions {
  const groups = new Map<1 | 3, Sizes>();
  let dark = 0;
  let brightest = 0;
  return {
    add(image) {
      const summary = 'data' in image ? summaryOf(image) : image;
      const fits = image.width === width && image.height === height && image.channels === channels;
      if (!fits) groups.set(image.channels, withImage(groups.get(image.channels), image));
      if (summary.brightest === undefined || summary.brightest >= DARK) return;
      dark++;
      brightest = Math.max(brightest, summary.brightest);
    },
    sentences() {
      const colourOf = (of: number) => (of === 1 ? 'grey' : 'colour');
      const sentences = [...groups]
        .sort(([a], [b]) => a - b)
        .map(([from, sizes]) => {
          const colour = from === channels ? '' : ` ${colourOf(channels)}`;
          return `${images(sizes.count, colourOf(from))} of ${sizesText(sizes)} became ${width}x${height}${colour}`;
        });
      if (dark > 0) {
        const bits = 8 + Math.ceil(Math.log2(brightest + 1));
        sentences.push(
          `${images(dark, '16-bit')} ${dark === 1 ? 'has' : 'have'} values of at most ${bits} bits and ${dark === 1 ? 'looks' : 'look'} almost black, because 65535 is white and the high byte is kept; stretch the values to 0..65535 first`,
        );
      }
      return sentences;
    },
  };
}
