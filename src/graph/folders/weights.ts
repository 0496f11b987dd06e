// Where a network's weights are: the safetensors files in its folder.

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ModelError } from '../../errors.ts';
import { quote, reason } from '../files/json.ts';

/**
 * Finds the safetensors weights `stem` in a component's folder: a single file, the index of a sharded set, or
 * the fp16 variant of either, in this order. Throws `ModelError` when there is none, and says what to do when
 * there are only pickles: `convert` them, by default with diffusers.
 */
export async function findWeights(
  folder: string,
  stem: string,
  convert = 'convert them once with diffusers (from_pretrained, then save_pretrained with safe_serialization=True)',
): Promise<string> {
  const names = await entries(folder);
  const wanted = [
    `${stem}.safetensors`,
    `${stem}.safetensors.index.json`,
    `${stem}.fp16.safetensors`,
    `${stem}.safetensors.index.fp16.json`,
    `${stem}.fp16.safetensors.index.json`,
  ];
  const found = wanted.find((name) => names.has(name));
  if (found) return join(folder, found);
  const pickle = [...names].sort().find((name) => /\.(?:bin|bin\.index\.json|pt|pth|ckpt|pkl)$/.test(name));
  if (pickle)
    throw new ModelError(
      `${join(folder, pickle)}: weights in a pickle can run code and are not read, ${convert}`,
    );
  const other = [...names].filter((name) => name.endsWith('.safetensors')).sort();
  throw new ModelError(
    `${join(folder, wanted[0]!)}: no such file${other.length > 0 ? ` (there is ${quote(other[0])})` : ''}`,
  );
}

/** The names of what is in a folder. @throws ModelError where there is none. */
export async function entries(folder: string): Promise<ReadonlySet<string>> {
  try {
    return new Set(await readdir(folder));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') throw new ModelError(`${folder}: no such folder`);
    throw new ModelError(`${folder}: ${code === 'ENOTDIR' ? 'is not a folder' : reason(error)}`);
  }
}
