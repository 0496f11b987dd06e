// A textual inversion (Gal et al. 2023): vectors that stand for a new word of the prompts. Files come from diffusers, from
// the original code and its web interfaces, and for two text encoders.

import { ModelError } from '../../errors.ts';
import { isTorchFile, openCheckpoint } from '../files/checkpoint-file.ts';
import type { Files } from '../files/files.ts';
import { quote } from '../files/json.ts';
import { type Pickled, PickledObject } from '../files/pickle.ts';
import { readTorch, TorchTensor } from '../files/torch-file.ts';
import type { VirtualTensor } from '../files/virtual-safetensors.ts';
import { readValues } from './values.ts';

/** The vectors for one text encoder. */
export interface EmbeddingVectors {
  /** The text encoder that the file names: CLIP-L or OpenCLIP-G of SDXL; undefined if it names none. */
  readonly encoder: 'clip_l' | 'clip_g' | undefined;
  readonly count: number;
  readonly width: number;
  /** [count, width] */
  readonly values: Float32Array;
}

/** What a file holds. */
export interface Embedding {
  /** The file in messages. */
  readonly path: string;
  /** The word that the file itself gives; undefined if it gives none. */
  readonly token: string | undefined;
  readonly vectors: readonly EmbeddingVectors[];
}

/** Names of tensors that are no tokens. */
const NO_TOKENS: readonly string[] = ['emb_params', '*', 'clip_l', 'clip_g'];

/** The most vectors of a word: a text has 77 tokens, of which two begin and end it. */
const MOST_VECTORS = 75;

/** Reads one tensor. @throws ModelError unless it is a vector or a list of vectors. */
async function vectorsOf(name: string, tensor: VirtualTensor, path: string): Promise<EmbeddingVectors> {
  const { shape } = tensor;
  const [count = 0, width = 0] = shape.length === 1 ? [1, ...shape] : shape;
  if (shape.length < 1 || shape.length > 2 || width === 0 || count < 1 || count > MOST_VECTORS)
    throw new ModelError(
      `${path}: tensor ${quote(name)}: expected a vector or 1 to ${MOST_VECTORS} vectors, got the shape [${shape.join(', ')}]`,
    );
  const encoder = name === 'clip_l' || name === 'clip_g' ? name : undefined;
  return { encoder, count, width, values: await readValues(tensor, name, path) };
}

/** Returns the entries of a dictionary, also if it is an object of torch that holds parameters. */
function entriesOf(value: Pickled | undefined): readonly (readonly [string, Pickled])[] {
  if (value instanceof PickledObject)
    return value.state instanceof Map ? entriesOf(value.state.get('_parameters') ?? null) : [];
  return value instanceof Map ? [...value].map(([key, entry]) => [String(key), entry]) : [];
}

const tensorsIn = (entries: readonly (readonly [string, Pickled])[]): [string, VirtualTensor][] =>
  entries.flatMap(([name, value]) => (value instanceof TorchTensor ? [[name, value]] : []));

/** Returns the tensors of a file of torch.save by their names, and the word. */
function torchTensors(value: Pickled): { tensors: [string, VirtualTensor][]; token: string | undefined } {
  if (value instanceof TorchTensor) return { tensors: [['*', value]], token: undefined };
  const parameters = value instanceof Map ? value.get('string_to_param') : undefined;
  if (parameters === undefined) return { tensors: tensorsIn(entriesOf(value)), token: undefined };
  const name = (value as Map<string, Pickled>).get('name');
  return { tensors: tensorsIn(entriesOf(parameters)), token: typeof name === 'string' ? name : undefined };
}

/**
 * Reads a textual inversion (`.safetensors`, `.pt`, `.bin`). Nothing of a pickle is executed.
 * @throws ModelError, one sentence naming the file, if it does not hold the vectors of one word.
 */
export async function readEmbedding(files: Files, name: string): Promise<Embedding> {
  const path = files.describe(name);
  const file = await files.open(name);
  try {
    const read = (await isTorchFile(file))
      ? torchTensors(await readTorch(file, path, { unknown: 'ignore' }))
      : undefined;
    if (read) return await embeddingOf(path, read.tensors, read.token);
  } finally {
    await file.close();
  }
  const checkpoint = await openCheckpoint(files, name);
  try {
    return await embeddingOf(path, [...checkpoint.tensors], checkpoint.metadata.get('name'));
  } finally {
    await checkpoint.close();
  }
}

async function embeddingOf(
  path: string,
  tensors: readonly (readonly [string, VirtualTensor])[],
  name: string | undefined,
): Promise<Embedding> {
  const names = tensors.map(([tensor]) => tensor);
  const forTwo = names.includes('clip_l') || names.includes('clip_g');
  const own = tensors.filter(([tensor]) => !forTwo || tensor === 'clip_l' || tensor === 'clip_g');
  if (own.length === 0 || (!forTwo && own.length > 1))
    throw new ModelError(
      `${path}: expected the vectors of one word (a textual inversion), got ${own.length === 0 ? 'no tensors' : `${own.length} tensors, first ${quote(names[0])}`}`,
    );
  const vectors = await Promise.all(own.map(([tensor, value]) => vectorsOf(tensor, value, path)));
  if (new Set(vectors.map(({ count }) => count)).size > 1)
    throw new ModelError(
      `${path}: expected equally many vectors for both text encoders, got ${vectors.map(({ count }) => count).join(' and ')}`,
    );
  const [first] = names;
  return { path, vectors, token: !forTwo && !NO_TOKENS.includes(first!) ? first : name };
}
