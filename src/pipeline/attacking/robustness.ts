// Robust accuracy: the result of every image and attack, and the table of all results.

import { type Share, shareOf } from './wilson.ts';

/** A line of the log: the result of a clean image, or of an image under an attack. */
export interface Result {
  /** The image's path within the data set. */
  readonly key: string;
  /** `clean`, or the attack's name. */
  readonly attack: string;
  readonly label: number;
  readonly prediction: number;
  readonly margin: number;
  /** Clean: classified correctly. Under an attack: not broken by it. */
  readonly right: boolean;
  /** Calls of the attacked classifier; every draw counts as one. */
  readonly queries?: number;
  /** The adversarial image's file in the folder of `--save`. */
  readonly saved?: string;
}

/** Accuracy under one attack. */
interface AttackRow {
  readonly attack: string;
  /** Images that it was run on. */
  readonly attacked: number;
  /** Images that are right after it, of all images. */
  readonly robust: Share;
  /** Mean calls of the classifier per attacked image. */
  readonly queries: number;
}

/** The table of an evaluation. */
export interface Table {
  /** Images with a result for everything that is run on them. */
  readonly images: number;
  readonly clean: Share;
  readonly attacks: readonly AttackRow[];
  /** Right under every attack. */
  readonly worst: Share;
}

/** The results of one image, by attack. */
type ImageResults = ReadonlyMap<string, Result>;

/** How attacks are run on an image. */
interface AttackOrder {
  /**
   * If true, every attack is run on every image that is classified correctly; else none after the one that breaks it.
   */
  readonly every: boolean;
}

/** Returns the next attack to run on an image, from its results so far; undefined if there is none. */
export function nextAttack<Name extends string>(
  own: ImageResults,
  attacks: readonly Name[],
  { every }: AttackOrder,
): Name | undefined {
  if (!own.get('clean')?.right) return undefined;
  for (const attack of attacks) {
    const result = own.get(attack);
    if (!result) return attack;
    if (!every && !result.right) return undefined;
  }
  return undefined;
}

/**
 * Makes the table of results, from the images whose results are complete. A clean image that is classified
 * wrong counts as broken by all attacks. Unless every attack is run on every image, a row counts the images
 * that are right after its attack and all earlier ones, as AutoAttack does (Croce and Hein, ICML 2020). The
 * order of the results does not matter.
 */
export function tableOf(results: Iterable<Result>, attacks: readonly string[], order: AttackOrder): Table {
  const byKey = new Map<string, Map<string, Result>>();
  for (const result of results) {
    const own = byKey.get(result.key) ?? new Map<string, Result>();
    own.set(result.attack, result);
    byKey.set(result.key, own);
  }
  const whole = [...byKey.values()].filter(
    (own) => own.has('clean') && nextAttack(own, attacks, order) === undefined,
  );
  const images = whole.length;
  const share = (of: readonly ImageResults[]) => shareOf(of.length, images);
  const clean = whole.filter((own) => own.get('clean')!.right);
  let standing = clean;
  const rows = attacks.map((attack): AttackRow => {
    const attacked = order.every ? clean : standing;
    const robust = attacked.filter((own) => own.get(attack)!.right);
    standing = standing.filter((own) => own.get(attack)?.right);
    const queries = attacked.reduce((sum, own) => sum + (own.get(attack)!.queries ?? 0), 0);
    return {
      attack,
      attacked: attacked.length,
      robust: share(robust),
      queries: attacked.length === 0 ? 0 : queries / attacked.length,
    };
  });
  return { images, clean: share(clean), attacks: rows, worst: share(standing) };
}

const percent = (value: number) => (100 * value).toFixed(2);

/** Formats a table: a row per line, accuracy in per cent with its interval. `how` says how the attacks were run. */
export function tableText({ images, clean, attacks, worst }: Table, how = ''): string {
  const row = (name: string, attacked: string, { count, share, interval }: Share, queries: string) => [
    name,
    attacked,
    `${count}`,
    percent(share),
    interval.map(percent).join(' to '),
    queries,
  ];
  const rows = [
    ['', 'attacked', 'right', 'accuracy %', '95 % interval', 'queries'],
    row('clean', '', clean, ''),
    ...attacks.map(({ attack, attacked, robust, queries }) =>
      row(attack, `${attacked}`, robust, queries.toFixed(1)),
    ),
    ...(attacks.length > 0 ? [row('worst case', '', worst, '')] : []),
  ];
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((cells) => cells[i]!.length)));
  const lines = rows.map((cells) =>
    cells
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join('  ')
      .trimEnd(),
  );
  return `${lines.join('\n')}\nof ${images} images${how}\n`;
}
