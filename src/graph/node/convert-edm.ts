// Converting EDM's pickles on disk to model folders.

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ModelError } from '../../errors.ts';
import { product } from '../../numbers.ts';
import { readWhole } from '../files/files.ts';
import { parseJson } from '../files/json.ts';
import { type EdmArguments, readEdmPickle } from '../folders/edm-pickle.ts';
import { fileAt } from './folder-files.ts';
import { writeSafetensors } from './write-safetensors.ts';

export interface ConvertOptions {
  /** The path of a `config.json` for what the file does not contain; it overrides the file and what is inferred. */
  readonly config?: string;
  /** Names of the classes. */
  readonly labels?: readonly string[];
}

/** What a conversion wrote. */
export interface Converted {
  readonly tensors: number;
  readonly parameters: number;
  readonly config: EdmArguments;
}

async function readArguments(path: string): Promise<EdmArguments> {
  const given = parseJson(await readWhole(...fileAt(path)), path, true);
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw new ModelError(`${path}: expected an object of EDMPrecond's arguments`);
  return given as EdmArguments;
}

/**
 * Converts EDM's pickle (`edm-cifar10-32x32-cond-vp.pkl`, key `ema`) or a state dict of EDMPrecond (`.pt`) to a model
 * folder `out`: `config.json` and `model.safetensors`, with EDM's own names. Nothing of the file is executed.
 *
 * A state dict does not contain its network's arguments: the architecture is inferred from names and shapes, or given by
 * `config`. Nothing is written unless the tensors are exactly those of that architecture.
 *
 * @throws ModelError, one sentence naming the file, if it holds anything but tensors and EDM's objects, or if
 *   architecture and tensors do not fit.
 */
export async function convertEdm(
  path: string,
  out: string,
  { config: configFile, labels }: ConvertOptions = {},
): Promise<Converted> {
  const given = configFile === undefined ? undefined : await readArguments(configFile);
  const [files, name] = fileAt(path);
  const file = await files.open(name);
  try {
    const { config: own, tensors } = await readEdmPickle(file, path, given);
    const id2label = labels && Object.fromEntries(labels.map((label, k) => [k, label]));
    const config = { ...own, ...(id2label && { id2label }) };
    await mkdir(out, { recursive: true });
    await writeSafetensors(join(out, 'model.safetensors'), tensors, [['format', 'pt']]);
    await writeFile(join(out, 'config.json'), `${JSON.stringify(config, null, 2)}\n`);
    const parameters = tensors.reduce((sum, [, { shape }]) => sum + product(shape), 0);
    return { tensors: tensors.length, parameters, config };
  } finally {
    await file.close();
  }
}
