// A model's files with the adapters of the options: textual inversions first, then LoRAs.

import { basename, extname } from 'node:path';
import { addEmbeddings, type NamedEmbedding } from '../adapters/add-embeddings.ts';
import { readEmbedding } from '../adapters/embedding-file.ts';
import { mergeLoras } from '../adapters/merge-loras.ts';
import type { Files } from '../files/files.ts';
import type { Embedding, Lora, OpenModelOptions } from '../models/open-model.ts';
import { fileAt } from './folder-files.ts';
import { modelDigest } from './model-digest.ts';

/** The options that change a model's files. */
type AdapterOptions = Pick<OpenModelOptions, 'loras' | 'embeddings'>;

/** A model's files, and what a record says of the adapters in them: files, digests and weights, by option. */
interface Adapted {
  readonly files: Files;
  readonly overlays: Readonly<Record<string, string>>;
}

/** Reads an embedding. Its word is the given one, else the file's own, else the name of the file. */
async function named({ file, token }: Embedding): Promise<NamedEmbedding> {
  const embedding = await readEmbedding(...fileAt(file));
  return { ...embedding, token: token ?? embedding.token ?? basename(file, extname(file)) };
}

const loraRecord = async ({ file, weight = 1 }: Lora): Promise<string> =>
  `${basename(file)} ${await modelDigest(file)} times ${weight}`;

/**
 * Returns a model's files with embeddings and LoRAs.
 * @throws ModelError, one sentence, if a file is not what it should be, or does not fit the model.
 */
export async function adaptedFiles(
  files: Files,
  { loras = [], embeddings = [] }: AdapterOptions,
): Promise<Adapted> {
  const words = await Promise.all(embeddings.map(named));
  const sources = loras.map(({ file, weight = 1 }) => {
    const [folder, name] = fileAt(file);
    return { files: folder, name, weight };
  });
  const adapted = await mergeLoras(await addEmbeddings(files, words), sources);
  const embeddingTexts = embeddings.map(
    async ({ file }, i) => `${basename(file)} ${await modelDigest(file)} as ${words[i]!.token}`,
  );
  return {
    files: adapted,
    overlays: {
      ...(embeddings.length > 0 && { embeddings: (await Promise.all(embeddingTexts)).join(', ') }),
      ...(loras.length > 0 && { loras: (await Promise.all(loras.map(loraRecord))).join(', ') }),
    },
  };
}
