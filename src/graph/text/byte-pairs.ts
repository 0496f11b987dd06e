// Byte pair encoding over CLIP's alphabet: every byte of a word's UTF-8 becomes a printable character, the last one gets
// the mark of a word's end, and pairs are joined in the order in which training found them
// (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units".)

/** The end of the last sub-word of a word. */
export const END_OF_WORD = '</w>';

/** The character of every byte: printable bytes of Latin-1 stand for themselves, the others for U+0100 and following. */
export const ALPHABET: readonly string[] = (() => {
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    return String.fromCharCode(printable ? byte : 0x100 + others++);
  });
})();

const utf8 = new TextEncoder();

/** Ranks of pairs by `pairKey`; pairs of lower rank are joined earlier. */
export type Merges = ReadonlyMap<string, number>;

/** Returns the key of a pair in `Merges`; no sub-word holds a space. */
export const pairKey = (left: string, right: string): string => `${left} ${right}`;

/** Returns a function from a word (not empty, without spaces) to the ids of its sub-words. */
export function bytePairs(
  vocabulary: ReadonlyMap<string, number>,
  merges: Merges,
  unknown: number,
): (word: string) => readonly number[] {
  const known = new Map<string, readonly number[]>();
  return (word) => {
    let ids = known.get(word);
    if (!ids) {
      ids = joinPairs(word, merges).map((subword) => vocabulary.get(subword) ?? unknown);
      known.set(word, ids);
    }
    return ids;
  };
}

/** Joins pairs until no two neighbours are among the merges. Returns the sub-words that are left. */
function joinPairs(word: string, merges: Merges): readonly string[] {
  let subwords = Array.from(utf8.encode(word), (byte) => ALPHABET[byte]!);
  subwords.push(subwords.pop()! + END_OF_WORD);
  for (;;) {
    let best = Number.POSITIVE_INFINITY;
    let at = 0;
    for (let i = 0; i + 1 < subwords.length; i++) {
      const rank = merges.get(pairKey(subwords[i]!, subwords[i + 1]!));
      if (rank !== undefined && rank < best) {
        best = rank;
        at = i;
      }
    }
    if (best === Number.POSITIVE_INFINITY) return subwords;
    const left = subwords[at]!;
    const right = subwords[at + 1]!;
    const next = subwords.slice(0, at);
    for (let i = at; i < subwords.length; i++) {
      const pair = subwords[i] === left && subwords[i + 1] === right;
      next.push(pair ? left + right : subwords[i]!);
      if (pair) i++;
    }
    subwords = next;
  }
}
