// Robust accuracy: what is written down of every image and attack, and the table that all of it makes.

import { type Share, shareOf } from './wilson.ts';

/** A line of the log: an image as it is (`clean`), or under an attack. */
export interface Result {
  readonly key: string;
  /** `clean`, or the attack's name. */
  readonly attack: string;
  readonly label: number;
  readonly prediction: number;
  readonly margin: number;
  /** Right as it is; under an attack, not broken. */
  readonly right: boolean;
  /** Calls of the attacked classifier, each draw one. */
  readonly queries?: number;
}

/** Accuracy under one attack, of all images. */
export interface AttackRow {
  readonly attack: string;
  readonly robust: Share;
  /** Mean calls of the classifier, of the images that were attacked. */
  readonly queries: number;
}

/** The table of an evaluation. */
export interface Table {
  /** Images with a result for everything. */
  readonly images: number;
  readonly clean: Share;
  readonly attacks: readonly AttackRow[];
  /** Right under every attack. */
  readonly worst: Share;
}

/**
 * The table of some results: of images that have a clean one, and, where that is right, one of every attack. An image
 * that is wrong as it is counts as broken by all. The order of the results does not matter.
 */
export function tableOf(results: Iterable<Result>, attacks: readonly string[]): Table {
  const byKey = new Map<string, Map<string, Result>>();
  for (const result of results) {
    const own = byKey.get(result.key) ?? new Map<string, Result>();
    own.set(result.attack, result);
    byKey.set(result.key, own);
  }
  const whole = [...byKey.values()].filter(
    (own) => own.has('clean') && (!own.get('clean')!.right || attacks.every((attack) => own.has(attack))),
  );
  const images = whole.length;
  const clean = whole.filter((own) => own.get('clean')!.right);
  const share = (count: number) => shareOf(count, images);
  return {
    images,
    clean: share(clean.length),
    attacks: attacks.map((attack) => ({
      attack,
      robust: share(clean.filter((own) => own.get(attack)!.right).length),
      queries:
        clean.length === 0
          ? 0
          : clean.reduce((sum, own) => sum + (own.get(attack)!.queries ?? 0), 0) / clean.length,
    })),
    worst: share(clean.filter((own) => attacks.every((attack) => own.get(attack)!.right)).length),
  };
}

const percent = (value: number) => (100 * value).toFixed(2);

/** A table as text: a row a line, accuracy in per cent with its interval. */
export function tableText({ images, clean, attacks, worst }: Table): string {
  const rows = [
    ['', 'right', 'accuracy %', '95 % interval', 'queries'],
    ['clean', clean, ''] as const,
    ...attacks.map(({ attack, robust, queries }) => [attack, robust, queries.toFixed(1)] as const),
    ...(attacks.length > 0 ? [['worst case', worst, ''] as const] : []),
  ].map((row) => {
    if (row.length === 5) return row as readonly string[];
    const [name, { count, share, interval }, queries] = row as readonly [string, Share, string];
    return [name, `${count}`, percent(share), interval.map(percent).join(' to '), queries];
  });
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  const lines = rows.map((row) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join('  ')
      .trimEnd(),
  );
  return `${lines.join('\n')}\nof ${images} images\n`;
}
