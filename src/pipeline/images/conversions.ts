// What fitting images to a model did to them, summed up in a few sentences: a 12-megapixel colour photo that became
// 28x28 grey pixels still gets a label, and its user should know on what it rests.

import type { Model } from '../../graph/model.ts';
import type { Pixels } from './pixels.ts';

/** Fewer levels than this left of a 16-bit image are told: a 12-bit camera's file uses the lowest 16 high bytes. */
const FEW_LEVELS = 8;

/** Images of one kind: how many, their mean size, and the smallest and the largest. */
interface Group {
  readonly count: number;
  readonly logWidth: number;
  readonly logHeight: number;
  readonly smallest: Size;
  readonly largest: Size;
}

type Size = Pick<Pixels, 'width' | 'height'>;

const area = ({ width, height }: Size) => width * height;

function withImage(group: Group | undefined, { width, height }: Size): Group {
  const size = { width, height };
  return {
    count: (group?.count ?? 0) + 1,
    logWidth: (group?.logWidth ?? 0) + Math.log(width),
    logHeight: (group?.logHeight ?? 0) + Math.log(height),
    smallest: group && area(group.smallest) <= area(size) ? group.smallest : size,
    largest: group && area(group.largest) >= area(size) ? group.largest : size,
  };
}

const sizeText = ({ width, height }: Size) => `${width}x${height}`;

/** The sizes of a group: the one that all have, their geometric mean if they are alike, else the extremes. */
function sizesOf({ count, logWidth, logHeight, smallest, largest }: Group): string {
  const rounded = (sum: number) => Number(Math.exp(sum / count).toPrecision(2));
  const mean = { width: rounded(logWidth), height: rounded(logHeight) };
  if (sizeText(smallest) === sizeText(largest) && area(smallest) > 0) return sizeText(smallest);
  return area(largest) < 4 * area(smallest)
    ? `about ${sizeText(mean)}`
    : `${sizeText(smallest)} to ${sizeText(largest)}`;
}

/** Whether the samples of an image have fewer than `FEW_LEVELS` different values. */
function hasFewLevels(data: Uint8Array): boolean {
  const seen = new Set<number>();
  for (const value of data) if (seen.add(value).size >= FEW_LEVELS) return false;
  return true;
}

const images = (count: number, kind: string) =>
  `${count.toLocaleString('en-US')} ${kind} image${count === 1 ? '' : 's'}`;

/** A running summary of conversions. */
export interface Conversions {
  /** Counts a decoded image; to be given as `onDecoded` of `loadImages`. */
  readonly add: (image: Pixels) => void;
  /** One sentence for each kind of conversion so far, such as "12 colour images of about 4000x3000 became 28x28 grey". */
  readonly sentences: () => string[];
}

/**
 * Sums up what is done to images to fit them to a model's input shape [c, h, w].
 *
 * @example
 * import { conversions, findImages, loadImages } from 'diffclass-stream';
 * const done = conversions([1, 28, 28]);
 * for await (const image of loadImages(findImages(['photos']), [1, 28, 28], { onDecoded: done.add })) console.log(image.path);
 * for (const sentence of done.sentences()) console.error(sentence);
 */
export function conversions([channels, height, width]: Model['inputShape']): Conversions {
  const groups = new Map<1 | 3, Group>();
  let shallow = 0;
  return {
    add(image) {
      const fits = image.width === width && image.height === height && image.channels === channels;
      if (!fits) groups.set(image.channels, withImage(groups.get(image.channels), image));
      if (image.bitDepth !== undefined && hasFewLevels(image.data)) shallow++;
    },
    sentences() {
      const colourOf = (of: number) => (of === 1 ? 'grey' : 'colour');
      const sentences = [...groups]
        .sort(([a], [b]) => a - b)
        .map(([from, group]) => {
          const colour = from === channels ? '' : ` ${colourOf(channels)}`;
          return `${images(group.count, colourOf(from))} of ${sizesOf(group)} became ${width}x${height}${colour}`;
        });
      if (shallow > 0)
        sentences.push(
          `${images(shallow, '16-bit')} kept fewer than ${FEW_LEVELS} grey levels, because 8 bits keep the high byte only; stretch the values to 0..65535 first`,
        );
      return sentences;
    },
  };
}
