// A model's files with the adapters of the options merged into them.

import { mergeLoras } from '../adapters/merge-loras.ts';
import type { Files } from '../files/files.ts';
import type { OpenModelOptions } from '../models/open-model.ts';
import { fileAt } from './folder-files.ts';
import { modelDigest } from './model-digest.ts';

/** The options that change a model's files. */
export type AdapterOptions = Pick<OpenModelOptions, 'loras'>;

/**
 * Returns a model's files with LoRAs merged into them.
 * @throws ModelError, one sentence, if a file is not a LoRA, or naming the first tensor that does not fit the model.
 */
export function adaptedFiles(files: Files, { loras = [] }: AdapterOptions): Promise<Files> {
  const sources = loras.map(({ file, weight = 1 }) => {
    const [folder, name] = fileAt(file);
    return { files: folder, name, weight };
  });
  return mergeLoras(files, sources);
}

/** Returns what a record says of the adapters: their files, digests and weights, by option; nothing without adapters. */
export async function adapterRecord({
  loras = [],
}: AdapterOptions): Promise<Readonly<Record<string, string>>> {
  if (loras.length === 0) return {};
  const texts = loras.map(async ({ file, weight = 1 }) => {
    const [, name] = fileAt(file);
    return `${name} ${await modelDigest(file)} times ${weight}`;
  });
  return { loras: (await Promise.all(texts)).join(', ') };
}
