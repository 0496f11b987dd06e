// Textual inversions added to a model: the model's files, in which the tokenizer has a further token per vector, and the
// text encoder's table a further row.

import { ModelError } from '../../errors.ts';
import { product } from '../../numbers.ts';
import { type Files, nameIn } from '../files/files.ts';
import { quote, readJson } from '../files/json.ts';
import { openTensorFile, type TensorFile } from '../files/safetensors.ts';
import { jsonFile, type VirtualFile, withVirtualFiles } from '../files/virtual-files.ts';
import { type VirtualTensor, virtualSafetensors } from '../files/virtual-safetensors.ts';
import { findWeights } from '../folders/weights.ts';
import { readVocabulary } from '../text/tokenizer-files.ts';
import type { Embedding, EmbeddingVectors } from './embedding-file.ts';

/** A textual inversion, and the word that stands for it in prompts. */
export interface NamedEmbedding extends Embedding {
  readonly token: string;
}

/** The folders of the text encoders, with the names that files for two encoders give them. */
const ENCODERS = [
  { encoder: 'text_encoder', tokenizer: 'tokenizer', name: 'clip_l' },
  { encoder: 'text_encoder_2', tokenizer: 'tokenizer_2', name: 'clip_g' },
] as const;
type Encoder = (typeof ENCODERS)[number];

/** New tokens with their vectors. */
type Rows = ReadonlyMap<string, Float32Array>;

/** Returns the vectors of an embedding for one of a model's encoders. @throws ModelError if there are none. */
function vectorsFor(
  { path, vectors }: Embedding,
  { name, encoder }: Encoder,
  two: boolean,
): EmbeddingVectors {
  const found = vectors.find((one) => one.encoder === name || (!two && one.encoder === undefined));
  if (found && (two || vectors.length === 1)) return found;
  throw new ModelError(
    two
      ? `${path}: has no vectors for the ${encoder} (${name}); this embedding is for a model with one text encoder`
      : `${path}: has vectors for two text encoders (clip_l and clip_g), but the model has one; this embedding is for SDXL`,
  );
}

/** Returns the tokens of the embeddings, as diffusers names them: TOKEN, TOKEN_1, TOKEN_2, ... */
function rowsOf(embeddings: readonly NamedEmbedding[], encoder: Encoder, two: boolean, width: number): Rows {
  const rows = new Map<string, Float32Array>();
  for (const embedding of embeddings) {
    const { path, token } = embedding;
    const vectors = vectorsFor(embedding, encoder, two);
    if (vectors.width !== width)
      throw new ModelError(
        `${path}: expected vectors of ${width} numbers for the model's ${encoder.encoder}, got ${vectors.width}; this embedding is for another base model`,
      );
    for (let k = 0; k < vectors.count; k++) {
      const name = k === 0 ? token : `${token}_${k}`;
      if (rows.has(name))
        throw new ModelError(
          `${path}: the token ${quote(name)} is given twice; name another one with FILE:TOKEN`,
        );
      rows.set(name, vectors.values.subarray(k * width, (k + 1) * width));
    }
  }
  return rows;
}

/** Returns the files of a tokenizer with new tokens, and the id of the first of them. */
async function addTokens(
  files: Files,
  folder: string,
  embeddings: readonly NamedEmbedding[],
  rows: Rows,
): Promise<{ readonly first: number; readonly virtual: readonly [string, VirtualFile][] }> {
  const { ids, added } = await readVocabulary(files, folder);
  const known = new Map([...ids, ...added.map(({ content, id }) => [content, id] as const)]);
  const taken = [...rows.keys()].find((token) => known.has(token));
  if (taken !== undefined)
    throw new ModelError(
      `${embeddings.find(({ token }) => taken.startsWith(token))!.path}: the model has the token ${quote(taken)} already; name another one with FILE:TOKEN`,
    );
  const first = [...known.values()].reduce((most, id) => Math.max(most, id), -1) + 1;
  const tokens = [...rows.keys()].map((token, i) => [token, first + i] as const);
  const present = new Set(await files.list(folder));
  const object = async (name: string) =>
    present.has(name) ? ((await readJson(files, nameIn(folder, name))) as Record<string, unknown>) : {};
  const config = await object('tokenizer_config.json');
  const decoder = config.added_tokens_decoder;
  const [name, value] = decoder
    ? [
        'tokenizer_config.json',
        {
          ...config,
          added_tokens_decoder: {
            ...(decoder as object),
            ...Object.fromEntries(tokens.map(([content, id]) => [id, { content }])),
          },
        },
      ]
    : ['added_tokens.json', { ...(await object('added_tokens.json')), ...Object.fromEntries(tokens) }];
  const path = nameIn(folder, name as string);
  return { first, virtual: [[path, jsonFile(files.describe(path), value)]] };
}

/** Returns a table of tokens in f32 in which rows from `first` on are replaced or added. */
function withRows(file: TensorFile, name: string, rows: Rows, first: number): VirtualTensor {
  const [count = 0, width = 0] = file.tensors.get(name)!.shape;
  const added = new Float32Array(rows.size * width);
  [...rows.values()].forEach((row, i) => {
    added.set(row, i * width);
  });
  const begin = first * width;
  const own = Math.min(count * width, begin);
  const shape = [Math.max(count, first + rows.size), width];
  return {
    dtype: 'F32',
    shape,
    async read(from, into) {
      const start = Math.floor(from / 4);
      const values = new Float32Array(Math.ceil((from + into.length) / 4) - start);
      const fill = async (
        low: number,
        high: number,
        fetch: (at: number, part: Float32Array<ArrayBuffer>) => unknown,
      ) => {
        const [left, right] = [Math.max(low, start), Math.min(high, start + values.length)];
        if (left < right) await fetch(left, values.subarray(left - start, right - start));
      };
      const fromFile = (at: number, part: Float32Array<ArrayBuffer>) => file.readPart(name, at, part);
      await fill(0, own, fromFile);
      await fill(begin, begin + added.length, (at, part) =>
        part.set(added.subarray(at - begin, at - begin + part.length)),
      );
      // Rows after the new ones are those that the table has beyond the tokenizer's tokens.
      await fill(begin + added.length, product(shape), fromFile);
      into.set(new Uint8Array(values.buffer).subarray(from - 4 * start, from - 4 * start + into.length));
    },
  };
}

const TABLE = /^(?:text_model\.)?embeddings\.token_embedding\.weight$/;

/** Returns the virtual files of one text encoder and its tokenizer. */
async function extended(
  files: Files,
  encoder: Encoder,
  two: boolean,
  embeddings: readonly NamedEmbedding[],
): Promise<[string, VirtualFile][]> {
  const name = await findWeights(files, encoder.encoder, 'model');
  const open = async () => {
    const file = await openTensorFile(files, name);
    const table = [...file.tensors.values()].find(
      (tensor) => TABLE.test(tensor.name) && tensor.shape.length === 2,
    );
    if (table) return { file, table };
    await file.close();
    throw new ModelError(`${file.path}: tensor "embeddings.token_embedding.weight" is missing`);
  };
  const { file, table } = await open();
  await file.close();
  const rows = rowsOf(embeddings, encoder, two, table.shape[1]!);
  const { first, virtual } = await addTokens(files, encoder.tokenizer, embeddings, rows);
  const configName = `${encoder.encoder}/config.json`;
  const config = (await readJson(files, configName)) as Record<string, unknown>;
  const size = Math.max(table.shape[0]!, first + rows.size);
  const weights: VirtualFile = {
    description: file.path,
    async open() {
      const { file: source, table: tokens } = await open();
      const tensors = [...source.tensors.values()].map(
        ({ name: tensor, dtype, shape }): [string, VirtualTensor] => [
          tensor,
          tensor === tokens.name
            ? withRows(source, tensor, rows, first)
            : { dtype, shape, read: (from, into) => source.readBytes(tensor, from, into) },
        ],
      );
      return virtualSafetensors(tensors, source.metadata, () => source.close());
    },
  };
  return [
    ...virtual,
    [configName, jsonFile(files.describe(configName), { ...config, vocab_size: size })],
    [`${encoder.encoder}/model.safetensors`, weights],
  ];
}

/**
 * Returns a model's files with textual inversions: each word becomes a token in prompts. A word with several vectors is
 * written once and becomes all of them.
 * @throws ModelError, one sentence, if an embedding does not fit the model's text encoders, or a word is taken.
 */
export async function addEmbeddings(files: Files, embeddings: readonly NamedEmbedding[]): Promise<Files> {
  const [first] = embeddings;
  if (!first) return files;
  const present = new Set(await files.list(''));
  const encoders = ENCODERS.filter(({ encoder }) => present.has(encoder));
  if (encoders.length === 0)
    throw new ModelError(`${first.path}: the model has no text encoder, so that it takes no embeddings`);
  const virtual: [string, VirtualFile][] = [];
  for (const encoder of encoders)
    virtual.push(...(await extended(files, encoder, encoders.length > 1, embeddings)));
  return withVirtualFiles(files, new Map(virtual));
}
