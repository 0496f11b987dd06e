// Byte pair encoding over CLIP's alphabet: every byte of a word's UTF-8 is a printable character, the last one
// with the mark of a word's end, and pairs are joined in the order in which training found them.
// (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units".)

/** What the last piece of a word ends in. */
export const END_OF_WORD = '</w>';

/** The character of every byte: printable bytes of Latin-1 are themselves, the others follow from U+0100 on. */
const ALPHABET: readonly string[] = (() => {
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    return String.fromCharCode(printable ? byte : 0x100 + others++);
  });
})();

const utf8 = new TextEncoder();

/** Ranks of pairs, by `pairKey`; lower is joined earlier. */
export type Merges = ReadonlyMap<string, number>;

/** The key of a pair in `Merges`; no piece holds a space. */
export const pairKey = (left: string, right: string): string => `${left} ${right}`;

/** A function from a word (neither empty nor holding a space) to the ids of its pieces. */
export function bytePairs(
  vocabulary: ReadonlyMap<string, number>,
  merges: Merges,
  unknown: number,
): (word: string) => readonly number[] {
  const known = new Map<string, readonly number[]>();
  return (word) => {
    let ids = known.get(word);
    if (!ids) {
      ids = joined(word, merges).map((piece) => vocabulary.get(piece) ?? unknown);
      known.set(word, ids);
    }
    return ids;
  };
}

/** The pieces that are left when no pair of neighbours is among the merges. */
function joined(word: string, merges: Merges): readonly string[] {
  let pieces = Array.from(utf8.encode(word), (byte) => ALPHABET[byte]!);
  pieces.push(pieces.pop()! + END_OF_WORD);
  for (;;) {
    let best = Number.POSITIVE_INFINITY;
    let at = 0;
    for (let i = 0; i + 1 < pieces.length; i++) {
      const rank = merges.get(pairKey(pieces[i]!, pieces[i + 1]!));
      if (rank !== undefined && rank < best) {
        best = rank;
        at = i;
      }
    }
    if (best === Number.POSITIVE_INFINITY) return pieces;
    const left = pieces[at]!;
    const right = pieces[at + 1]!;
    const next = pieces.slice(0, at);
    for (let i = at; i < pieces.length; i++) {
      const pair = pieces[i] === left && pieces[i + 1] === right;
      next.push(pair ? left + right : pieces[i]!);
      if (pair) i++;
    }
    pieces = next;
  }
}
