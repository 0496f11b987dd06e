// Reads the folder `tokenizer/` of a pipeline in every form in which versions of transformers save it: one file
// `tokenizer.json`, or `vocab.json` and `merges.txt`.

import { z } from 'zod';
import { ModelError } from '../../errors.ts';
import { type Files, nameIn, readWhole } from '../files/files.ts';
import { checked, quote, readJson } from '../files/json.ts';
import { wrongContent } from '../files/wrong-content.ts';
import {
  type AddedTokens,
  addedTokensDecoderSchema,
  addedTokensFileSchema,
  addedTokensListSchema,
  gatherAddedTokens,
  namedTokensSchema,
} from './added-tokens.ts';
import { END_OF_WORD, type Merges, pairKey } from './byte-pairs.ts';
import { type Tokenizer, tokenizer, type Vocabulary } from './tokenizer.ts';

/** Ids per text if the configuration has no number, or transformers' 1e30 for "not known". */
const DEFAULT_LENGTH = 77;
const UNKNOWN_LENGTH = 1e6;

const vocabularySchema = z.record(z.string(), z.int().min(0));
const configSchema = namedTokensSchema.extend({
  added_tokens_decoder: addedTokensDecoderSchema.optional(),
  tokenizer_class: z.string().nullish(),
  model_max_length: z.number().nullish(),
  padding_side: z.string().nullish(),
  truncation_side: z.string().nullish(),
});
const tokenizerJsonSchema = z.object({
  added_tokens: addedTokensListSchema.optional(),
  model: z.object({
    type: z.string().nullish(),
    vocab: vocabularySchema,
    merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])),
    end_of_word_suffix: z.string().nullish(),
  }),
});

/** Tokens, merges, and the file that messages about them name. */
interface BpeModel {
  readonly file: string;
  readonly ids: ReadonlyMap<string, number>;
  readonly merges: Merges;
  readonly added: z.infer<typeof addedTokensListSchema> | undefined;
}

/**
 * Reads the folder `tokenizer/`: the vocabulary from `tokenizer.json`, or else from `vocab.json` and `merges.txt`; and the
 * tokens that start, end and pad a text from `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`.
 * @throws ModelError naming the file that is missing or not a CLIP tokenizer's, and what to do.
 */
export const readTokenizer = async (files: Files, folder: string): Promise<Tokenizer> =>
  tokenizer(await readVocabulary(files, folder));

/** Reads the data of the tokenizer in a folder. Throws what `readTokenizer` throws. */
export async function readVocabulary(files: Files, folder: string): Promise<Vocabulary> {
  const present = new Set(await files.list(folder));
  const { file, ids, merges, added: tokenizerJson } = await readBpeModel(files, folder, present);
  const read = async <T>(schema: z.ZodType<T>, name: string): Promise<T | undefined> =>
    present.has(name) ? readChecked(schema, files, nameIn(folder, name)) : undefined;
  const config = await read(configSchema, 'tokenizer_config.json');
  const configFile = files.describe(nameIn(folder, 'tokenizer_config.json'));
  const specialTokensMap = await read(namedTokensSchema, 'special_tokens_map.json');
  if (!config && !specialTokensMap)
    throw new ModelError(
      `${configFile}: no such file; it or special_tokens_map.json must say what a prompt is padded with; ` +
        'copy it from the model that this one was made from',
    );
  const addedTokens = await read(addedTokensFileSchema, 'added_tokens.json');
  const { tokens, roles } = gatherAddedTokens({
    config: config ?? {},
    specialTokensMap,
    addedTokens,
    tokenizerJson,
  });
  const added = numbered({ tokens, roles }, ids, file);
  const idOf = (content: string): number => added.find((token) => token.content === content)!.id;
  return {
    ids,
    merges,
    added,
    start: idOf(roles.bos),
    end: idOf(roles.eos),
    padding: idOf(roles.pad),
    unknown: idOf(roles.unk),
    length: config ? textLength(config, configFile) : DEFAULT_LENGTH,
  };
}

async function readChecked<T>(schema: z.ZodType<T>, files: Files, name: string): Promise<T> {
  return checked(schema, await readJson(files, name), files.describe(name));
}

async function readBpeModel(files: Files, folder: string, present: ReadonlySet<string>): Promise<BpeModel> {
  if (present.has('tokenizer.json')) return readTokenizerJson(files, nameIn(folder, 'tokenizer.json'));
  const vocabulary = nameIn(folder, 'vocab.json');
  const mergesName = nameIn(folder, 'merges.txt');
  const missing = ['vocab.json', 'merges.txt'].find((name) => !present.has(name));
  if (missing)
    throw new ModelError(
      `${files.describe(nameIn(folder, missing))}: no such file; expected vocab.json and merges.txt, or tokenizer.json; ` +
        'copy the folder tokenizer from the model that this one was made from',
    );
  const file = files.describe(vocabulary);
  const ids = vocabularyOf(await readChecked(vocabularySchema, files, vocabulary), file);
  return { file, ids, merges: await readMerges(files, mergesName, ids), added: undefined };
}

async function readTokenizerJson(files: Files, name: string): Promise<BpeModel> {
  const file = files.describe(name);
  const { model, added_tokens } = await readChecked(tokenizerJsonSchema, files, name);
  const { type, end_of_word_suffix: suffix } = model;
  if (type && type !== 'BPE')
    throw new ModelError(`${file}: expected the model to be CLIP's BPE, got ${quote(type)}`);
  if (suffix != null && suffix !== END_OF_WORD)
    throw new ModelError(
      `${file}: expected CLIP's end_of_word_suffix ${quote(END_OF_WORD)}, got ${quote(suffix)}`,
    );
  const ids = vocabularyOf(model.vocab, file);
  const pairs = model.merges.map((merge) => (typeof merge === 'string' ? merge.split(' ') : merge));
  return { file, ids, merges: ranked(pairs, ids, (i) => `${file}: merge ${i}`), added: added_tokens };
}

function vocabularyOf(tokens: Readonly<Record<string, number>>, file: string): ReadonlyMap<string, number> {
  const ids = new Map(Object.entries(tokens));
  const holders = new Map<number, string>();
  for (const [token, id] of ids) {
    const other = holders.get(id);
    if (other !== undefined)
      throw new ModelError(`${file}: the tokens ${quote(other)} and ${quote(token)} both have the id ${id}`);
    holders.set(id, token);
  }
  return ids;
}

/** Reads the pairs of `merges.txt`, one per line after an optional `#version` line. */
async function readMerges(files: Files, name: string, ids: ReadonlyMap<string, number>): Promise<Merges> {
  const file = files.describe(name);
  const bytes = await readWhole(files, name);
  const wrong = wrongContent(bytes);
  if (wrong) throw new ModelError(`${file}: ${wrong}`);
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new ModelError(`${file}: is not valid UTF-8`);
  }
  const lines = text.replace(/\s+$/, '').split(/\r?\n/);
  const first = lines[0]!.startsWith('#version') ? 1 : 0;
  const pairs = lines.slice(first).map((line) => line.split(' '));
  return ranked(pairs, ids, (i) => `${file}: line ${i + first + 1}`);
}

function ranked(
  pairs: readonly (readonly string[])[],
  ids: ReadonlyMap<string, number>,
  place: (i: number) => string,
): Merges {
  const merges = new Map<string, number>();
  for (const [i, pair] of pairs.entries()) {
    const [left, right] = pair;
    if (pair.length !== 2 || !left || !right)
      throw new ModelError(
        `${place(i)}: expected two tokens with a space between them, got ${quote(pair.join(' '))}`,
      );
    const stranger = [left, right, left + right].find((token) => !ids.has(token));
    if (stranger !== undefined)
      throw new ModelError(
        `${place(i)}, ${quote(pair.join(' '))}, needs the token ${quote(stranger)}, which the vocabulary lacks; ` +
          'copy vocabulary and merges from one and the same model',
      );
    merges.set(pairKey(left, right), i);
  }
  return merges;
}

/** Returns every added token with its id, in order. Of two with the same content the later one counts; new ones come last. */
function numbered(
  { tokens, roles }: AddedTokens,
  ids: ReadonlyMap<string, number>,
  file: string,
): Vocabulary['added'] {
  const found = new Map<string, Vocabulary['added'][number]>();
  let next = [...ids.values()].reduce((a, b) => Math.max(a, b), -1) + 1;
  for (const token of tokens) {
    const { content } = token;
    const known = ids.get(content) ?? found.get(content)?.id;
    if (known === undefined && token.id === undefined && Object.values(roles).includes(content))
      throw new ModelError(
        `${file}: the vocabulary has no token ${quote(content)}, which starts, ends or pads prompts here; ` +
          'copy the folder tokenizer from the model that this one was made from',
      );
    const id = known ?? next++;
    if (token.id !== undefined && token.id !== id)
      throw new ModelError(
        `${file}: the added token ${quote(content)} has the id ${token.id}, but its id in the vocabulary is ${id}`,
      );
    found.set(content, { ...token, id });
  }
  return [...found.values()];
}

function textLength(config: z.infer<typeof configSchema>, file: string): number {
  for (const key of ['padding_side', 'truncation_side'] as const)
    if ((config[key] ?? 'right') !== 'right')
      throw new ModelError(`${file}: expected ${key} right, got ${quote(config[key])}`);
  const { tokenizer_class: type, model_max_length: length } = config;
  if (type && type !== 'CLIPTokenizer' && type !== 'CLIPTokenizerFast')
    throw new ModelError(`${file}: expected tokenizer_class CLIPTokenizer, got ${quote(type)}`);
  if (length == null || length >= UNKNOWN_LENGTH) return DEFAULT_LENGTH;
  if (!Number.isInteger(length) || length < 2)
    throw new ModelError(`${file}: expected a whole number from 2 on as model_max_length, got ${length}`);
  return length;
}
