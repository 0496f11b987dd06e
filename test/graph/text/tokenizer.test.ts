// Tests CLIP's tokenizer against that of transformers (test/golden/cliptokenizer.py), and the folders that it rejects.

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import { folderFiles } from '../../../src/graph/node/folder-files.ts';
import { readTokenizer } from '../../../src/graph/text/tokenizer-files.ts';

const goldenFolder = join(import.meta.dirname, '..', '..', 'golden', 'cliptokenizer');
interface Case {
  readonly files: Readonly<Record<string, unknown>>;
  readonly strings: 'strings' | 'added';
  readonly length: number;
  readonly padding: number;
  readonly ids: readonly (readonly number[])[];
}
const golden = JSON.parse(readFileSync(join(goldenFolder, 'expected.json'), 'utf8')) as {
  readonly strings: readonly string[];
  readonly added: readonly string[];
  readonly cases: Readonly<Record<string, Case>>;
};
const vocabulary = JSON.parse(readFileSync(join(goldenFolder, 'vocab.json'), 'utf8')) as Record<
  string,
  number
>;
const size = Object.keys(vocabulary).length;
const merges = readFileSync(join(goldenFolder, 'merges.txt'), 'utf8').trimEnd().split('\n').slice(1);

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

/** Writes a tokenizer's folder: the golden vocabulary and some files. null removes a file. */
function folderOf(files: Readonly<Record<string, unknown>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'tokenizer-'));
  folders.push(folder);
  for (const file of ['vocab.json', 'merges.txt']) cpSync(join(goldenFolder, file), join(folder, file));
  for (const [file, value] of Object.entries(files)) {
    if (value === null) rmSync(join(folder, file), { force: true });
    else writeFileSync(join(folder, file), typeof value === 'string' ? value : JSON.stringify(value));
  }
  return folder;
}

/** Reads the tokenizer of a folder on disk. */
const readTokenizerAt = (folder: string) => readTokenizer(folderFiles(folder), '');

const padded = (ids: readonly number[], { length, padding }: Case): number[] => [
  ...ids,
  ...Array<number>(length - ids.length).fill(padding),
];

describe("ids are those of transformers' CLIPTokenizer", () => {
  it.each(Object.entries(golden.cases))('%s', async (_, expected) => {
    const { encode, length } = await readTokenizerAt(folderOf(expected.files));
    expect(length).toBe(expected.length);
    const strings = golden[expected.strings];
    expect(expected.ids).toHaveLength(strings.length);
    const actual = strings.map((text) => [text, ...encode(text)]);
    expect(actual).toEqual(strings.map((text, i) => [text, ...padded(expected.ids[i]!, expected)]));
  });

  it('covers the special cases', () => {
    expect(golden.strings.length).toBeGreaterThanOrEqual(60);
    const { sd1, sd2 } = golden.cases;
    expect([sd1!.padding, sd2!.padding]).toEqual([size - 1, 0]);
    expect(sd1!.ids.filter((ids) => ids.length === 77).length).toBeGreaterThan(3);
  });

  it.each(['strings', 'pairs'])('from tokenizer.json with merges as %s', async (form) => {
    const { sd2 } = golden.cases;
    const { encode } = await readTokenizerAt(
      folderOf({
        'vocab.json': null,
        'merges.txt': null,
        'tokenizer_config.json': {
          tokenizer_class: 'CLIPTokenizerFast',
          model_max_length: 77,
          pad_token: '!',
        },
        'tokenizer.json': {
          added_tokens: ['<|startoftext|>', '<|endoftext|>'].map((content) => ({
            id: vocabulary[content],
            content,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: true,
            special: true,
          })),
          model: {
            type: 'BPE',
            end_of_word_suffix: '</w>',
            vocab: vocabulary,
            merges: form === 'strings' ? merges : merges.map((merge) => merge.split(' ')),
          },
        },
      }),
    );
    expect(golden.strings.map((text) => [...encode(text)])).toEqual(sd2!.ids.map((ids) => padded(ids, sd2!)));
  });

  it('accepts Windows line ends', async () => {
    const text = readFileSync(join(goldenFolder, 'merges.txt'), 'utf8').replaceAll('\n', '\r\n');
    const { sd1 } = golden.cases;
    const { encode } = await readTokenizerAt(folderOf({ ...sd1!.files, 'merges.txt': `${text}\r\n` }));
    expect([...encode(golden.strings[0]!)]).toEqual(padded(sd1!.ids[0]!, sd1!));
  });

  it('takes time proportional to the length of the text', async () => {
    const { encode } = await readTokenizerAt(folderOf(golden.cases.sd1!.files));
    const ids = encode('the '.repeat(200_000) + 'x'.repeat(100_000));
    expect(ids).toHaveLength(77);
    expect(ids[76]).toBe(size - 1);
  });

  it('accepts a lone surrogate', async () => {
    const { encode } = await readTokenizerAt(folderOf(golden.cases.sd1!.files));
    expect(encode('a\ud800')).toEqual(encode('a\ufffd'));
  });
});

describe('an invalid folder', () => {
  const sd1 = golden.cases.sd1!.files;
  const config = sd1['tokenizer_config.json'] as object;
  const without = (...tokens: readonly string[]) =>
    Object.fromEntries(Object.entries(vocabulary).filter(([token]) => !tokens.includes(token)));
  const lines = (change: (lines: string[]) => void): string => {
    const all = ['#version: 0.2', ...merges];
    change(all);
    return all.join('\n');
  };
  it.each<[what: string, files: Readonly<Record<string, unknown>>, message: RegExp]>([
    [
      'no vocab.json',
      { 'vocab.json': null },
      /\/vocab\.json: no such file; expected vocab\.json and merges\.txt, or tokenizer\.json; copy/,
    ],
    ['no merges.txt', { 'merges.txt': null }, /\/merges\.txt: no such file; expected vocab\.json/],
    [
      'no configuration',
      { 'tokenizer_config.json': null, 'special_tokens_map.json': null },
      /\/tokenizer_config\.json: no such file; it or special_tokens_map\.json must say what a prompt is padded with/,
    ],
    [
      'no start token',
      { 'vocab.json': without('<|startoftext|>') },
      /\/vocab\.json: the vocabulary has no token "<\|startoftext\|>"/,
    ],
    [
      'no end token',
      { 'vocab.json': without('<|endoftext|>') },
      /\/vocab\.json: the vocabulary has no token "<\|endoftext\|>"/,
    ],
    [
      'no pad token',
      { 'special_tokens_map.json': { pad_token: '[PAD]' } },
      /\/vocab\.json: the vocabulary has no token "\[PAD\]", which starts, ends or pads/,
    ],
    [
      'two tokens of one id',
      { 'vocab.json': { ...vocabulary, '!': 1 } },
      /\/vocab\.json: the tokens "!" and "\\"" both have the id 1$/,
    ],
    ['an id that is no number', { 'vocab.json': { ...vocabulary, '!': 'x' } }, /\/vocab\.json: !: /],
    ['no JSON', { 'vocab.json': '{' }, /\/vocab\.json: not valid JSON/],
    [
      'a merge of one',
      { 'merges.txt': lines((all) => all.splice(3, 1, 'abc')) },
      /\/merges\.txt: line 4: expected two tokens .*, got "abc"/,
    ],
    [
      'a merge of three',
      { 'merges.txt': lines((all) => all.splice(9, 1, 'a b c')) },
      /\/merges\.txt: line 10: expected two tokens .*, got "a b c"/,
    ],
    [
      'an empty line',
      { 'merges.txt': lines((all) => all.splice(5, 0, '')) },
      /\/merges\.txt: line 6: expected two tokens .*, got ""/,
    ],
    [
      'a merge into a token that is not in the vocabulary',
      { 'merges.txt': lines((all) => all.push('ÿ ÿ')) },
      /\/merges\.txt: line 3002, "ÿ ÿ", needs the token "ÿÿ", which the vocabulary lacks/,
    ],
    [
      'an added token whose id is not that of the vocabulary',
      { 'added_tokens.json': { '<cat-toy>': 49408 }, 'tokenizer_config.json': config },
      /\/vocab\.json: the added token "<cat-toy>" has the id 49408, but its id in the vocabulary is 3514$/,
    ],
    [
      'another tokenizer',
      { 'tokenizer_config.json': { tokenizer_class: 'T5Tokenizer' } },
      /tokenizer_config\.json: expected tokenizer_class CLIPTokenizer, got "T5Tokenizer"$/,
    ],
    [
      'padding on the left',
      { 'tokenizer_config.json': { padding_side: 'left' } },
      /expected padding_side right, got "left"$/,
    ],
    [
      'an invalid length',
      { 'tokenizer_config.json': { model_max_length: 1 } },
      /expected a whole number from 2 on as model_max_length, got 1$/,
    ],
    [
      'a token that is a number',
      { 'special_tokens_map.json': { pad_token: 3 } },
      /special_tokens_map\.json: pad_token: expected a token: a string/,
    ],
    [
      'a tokenizer.json of another kind',
      { 'tokenizer.json': { model: { type: 'WordPiece', vocab: {}, merges: [] } } },
      /\/tokenizer\.json: expected the model to be CLIP's BPE, got "WordPiece"$/,
    ],
    [
      'a tokenizer.json without a suffix of words',
      { 'tokenizer.json': { model: { end_of_word_suffix: '', vocab: {}, merges: [] } } },
      /\/tokenizer\.json: expected CLIP's end_of_word_suffix "<\/w>", got ""$/,
    ],
    [
      'a broken merge in tokenizer.json',
      {
        'tokenizer.json': {
          model: {
            type: 'BPE',
            vocab: vocabulary,
            merges: [
              ['i', 'n'],
              ['ÿ', 'ÿ'],
            ],
          },
        },
      },
      /\/tokenizer\.json: merge 1, "ÿ ÿ", needs the token "ÿÿ"/,
    ],
  ])('%s', async (_, files, message) => {
    const refused = readTokenizerAt(folderOf({ ...sd1, ...files }));
    await expect(refused).rejects.toThrow(ModelError);
    await expect(refused).rejects.toThrow(message);
  });
});
