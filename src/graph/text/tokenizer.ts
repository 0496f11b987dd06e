// CLIP's tokenizer, as transformers' CLIPTokenizer runs it. Added tokens are cut out. The rest is composed (NFC), runs of
// white space become one space, and letters become lower case. Words are contractions, runs of letters, single digits and
// runs of anything else; each word is byte pair encoded.

import { type AddedToken, splitter } from './added-tokens.ts';
import { bytePairs, type Merges } from './byte-pairs.ts';

/** Turns texts into token ids, always of the same length. */
export interface Tokenizer {
  /** Ids per text; CLIP's `model_max_length` is 77. */
  readonly length: number;
  /**
   * Returns the ids [length] of a text: the start token, the text's tokens, the end token, and padding. A long text is cut
   * such that the end token is kept.
   */
  encode(text: string): Int32Array<ArrayBuffer>;
  /** The id of the end token, which may also be the padding. */
  readonly end: number;
}

/** The data of a tokenizer. */
export interface Vocabulary {
  readonly ids: ReadonlyMap<string, number>;
  readonly merges: Merges;
  readonly added: readonly (AddedToken & { readonly id: number })[];
  readonly start: number;
  readonly end: number;
  readonly padding: number;
  /** The id of a byte that the vocabulary lacks. */
  readonly unknown: number;
  readonly length: number;
}

/** Composes, joins white space and lowers letters, one at a time, so that a last Greek sigma stays an ordinary one. */
function normalise(text: string): string {
  const spaced = text.normalize('NFC').replace(/\p{White_Space}+/gu, ' ');
  return Array.from(spaced, (letter) => letter.toLowerCase()).join('');
}

const WORDS = /<\|(?:start|end)oftext\|>|'(?:s|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu;

/** Yields the words of a normalised text. What only looks like a special token is split like other text. */
function* words(text: string): Generator<string> {
  for (const [word] of text.matchAll(WORDS)) {
    const [, name] = /^<\|(\w+)\|>$/.exec(word) ?? [];
    if (name === undefined) yield word;
    else yield* ['<|', name, '|>'];
  }
}

/**
 * Returns the ids that stand for an added token: its own, and those of the tokens that continue its name with _1, _2, ...,
 * because diffusers names the vectors of a textual inversion like this. The result has only tokens with several.
 */
function continuations(added: Vocabulary['added']): ReadonlyMap<number, readonly number[]> {
  const byContent = new Map(added.map(({ content, id }) => [content, id]));
  const found = new Map<number, readonly number[]>();
  for (const { content, id } of added) {
    const ids = [id];
    for (let next = byContent.get(`${content}_1`); next !== undefined; ) {
      ids.push(next);
      next = byContent.get(`${content}_${ids.length}`);
    }
    if (ids.length > 1) found.set(id, ids);
  }
  return found;
}

/** Returns the tokenizer of a vocabulary in memory; `readTokenizer` reads one from a folder. */
export function tokenizer(vocabulary: Vocabulary): Tokenizer {
  const { added, start, end, padding, length } = vocabulary;
  const encodeWord = bytePairs(vocabulary.ids, vocabulary.merges, vocabulary.unknown);
  const splitText = splitter(added.filter(({ normalized }) => !normalized));
  const splitNormalised = splitter(
    added
      .filter(({ normalized }) => normalized)
      .map((token) => ({ ...token, content: normalise(token.content) })),
  );

  const several = continuations(added);
  const whole = (id: number): readonly number[] => several.get(id) ?? [id];

  function* tokens(text: string): Generator<number> {
    for (const part of splitText(text)) {
      if (typeof part === 'number') yield* whole(part);
      else
        for (const inner of splitNormalised(normalise(part))) {
          if (typeof inner === 'number') yield* whole(inner);
          else for (const word of words(inner)) yield* encodeWord(word);
        }
    }
  }

  return {
    length,
    end,
    encode(text) {
      const ids = new Int32Array(length).fill(padding);
      ids[0] = start;
      let at = 1;
      for (const id of tokens(text)) {
        if (at === length - 1) break;
        ids[at++] = id;
      }
      ids[at] = end;
      return ids;
    },
  };
}
