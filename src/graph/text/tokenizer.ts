// CLIP's tokenizer as transformers' CLIPTokenizer runs it: added tokens are cut out; the rest is composed (NFC),
// runs of white space become one space, letters small; words are contractions, runs of letters, single digits and
// runs of anything else; each word is byte pair encoded.

import { type AddedToken, splitter } from './added-tokens.ts';
import { bytePairs, type Merges } from './byte-pairs.ts';

/** Text to token ids, all of one length. */
export interface Tokenizer {
  /** Ids of a text; CLIP's `model_max_length` is 77. */
  readonly length: number;
  /**
   * The ids [length] of a text: the start token, the text's tokens, the end token, and padding. A long text is cut so
   * that the end token is kept.
   */
  encode(text: string): Int32Array<ArrayBuffer>;
}

/** What a tokenizer is made of. */
export interface Vocabulary {
  readonly ids: ReadonlyMap<string, number>;
  readonly merges: Merges;
  readonly added: readonly (AddedToken & { readonly id: number })[];
  readonly start: number;
  readonly end: number;
  readonly padding: number;
  /** Stands for a byte that the vocabulary lacks. */
  readonly unknown: number;
  readonly length: number;
}

/** NFC, one space for a run of white space, small letters; a letter at a time, so that no final sigma arises. */
function normalise(text: string): string {
  const spaced = text.normalize('NFC').replace(/\p{White_Space}+/gu, ' ');
  return Array.from(spaced, (letter) => letter.toLowerCase()).join('');
}

const WORDS = /<\|(?:start|end)oftext\|>|'(?:s|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu;

/** The words of a normalised text. What looks like a special token and is none falls apart as text does. */
function* words(text: string): Generator<string> {
  for (const [word] of text.matchAll(WORDS)) {
    const [, name] = /^<\|(\w+)\|>$/.exec(word) ?? [];
    if (name === undefined) yield word;
    else yield* ['<|', name, '|>'];
  }
}

/** A tokenizer of a vocabulary in memory; `readTokenizer` makes one of a folder. */
export function tokenizer(vocabulary: Vocabulary): Tokenizer {
  const { added, start, end, padding, length } = vocabulary;
  const encodeWord = bytePairs(vocabulary.ids, vocabulary.merges, vocabulary.unknown);
  const splitText = splitter(added.filter(({ normalized }) => !normalized));
  const splitNormalised = splitter(
    added
      .filter(({ normalized }) => normalized)
      .map((token) => ({ ...token, content: normalise(token.content) })),
  );

  function* tokens(text: string): Generator<number> {
    for (const part of splitText(text)) {
      if (typeof part === 'number') yield part;
      else
        for (const piece of splitNormalised(normalise(part))) {
          if (typeof piece === 'number') yield piece;
          else for (const word of words(piece)) yield* encodeWord(word);
        }
    }
  }

  return {
    length,
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
