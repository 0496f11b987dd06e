// CLIP's tokenizer, made from its merges alone: the ids of the vocabulary follow from their order
// (openai/CLIP, simple_tokenizer.py).

import { type Files, readWhole } from '../files/files.ts';
import { jsonFile, openBytes, type VirtualFile } from '../files/virtual-files.ts';
import { ALPHABET, END_OF_WORD } from './byte-pairs.ts';

/** What texts are padded with: the end token, as OpenAI's CLIP is used, or "!" with the id 0, as OpenCLIP is. */
export type Padding = '<|endoftext|>' | '!';

/** Returns the id of every token, given the lines of `merges.txt`. */
function vocabularyOf(merges: readonly string[]): Readonly<Record<string, number>> {
  const letters = [...ALPHABET].sort();
  const tokens = [
    ...letters,
    ...letters.map((letter) => letter + END_OF_WORD),
    ...merges.map((merge) => merge.replace(' ', '')),
    '<|startoftext|>',
    '<|endoftext|>',
  ];
  return Object.fromEntries(tokens.map((token, id) => [token, id]));
}

/**
 * Returns the files of a folder `tokenizer` as transformers saves it, given the folder that holds CLIP's `merges.txt`;
 * `describe` says what messages call each.
 * @throws ModelError if the merges cannot be read.
 */
export async function clipTokenizerFiles(
  vocabulary: Files,
  padding: Padding,
  describe: (name: string) => string,
): Promise<ReadonlyMap<string, VirtualFile>> {
  const merges = await readWhole(vocabulary, 'merges.txt');
  const lines = new TextDecoder().decode(merges).trimEnd().split('\n').slice(1);
  const config = {
    tokenizer_class: 'CLIPTokenizer',
    model_max_length: 77,
    bos_token: '<|startoftext|>',
    eos_token: '<|endoftext|>',
    unk_token: '<|endoftext|>',
    pad_token: padding,
  };
  return new Map([
    ['vocab.json', jsonFile(describe('vocab.json'), vocabularyOf(lines))],
    ['merges.txt', { description: vocabulary.describe('merges.txt'), open: async () => openBytes(merges) }],
    ['tokenizer_config.json', jsonFile(describe('tokenizer_config.json'), config)],
  ]);
}
