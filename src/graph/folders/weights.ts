// Where a network's weights are: the files of safetensors in its folder, or else those of torch.save.

import { ModelError } from '../../errors.ts';
import { type Files, nameIn } from '../files/files.ts';
import { quote } from '../files/json.ts';

/** A network's weights for `openTensorFile`: one file, or the index of a sharded set. */
export interface WeightFile {
  readonly files: Files;
  readonly weights: string;
}

/**
 * Finds the weights `stem` in a component's folder: a single file, the index of a sharded set, or the fp16 variant of
 * either, in this order; first of safetensors, then of torch.save. Returns the file's name.
 * @throws ModelError if there is none. If there are only pickles by other names, the message says how to `convert` them, by
 * default with diffusers.
 */
export async function findWeights(
  files: Files,
  folder: string,
  stem: string,
  convert = 'convert them once with diffusers (from_pretrained, then save_pretrained with safe_serialization=True)',
): Promise<string> {
  const present = await entries(files, folder);
  const known = [
    `${stem}.safetensors`,
    `${stem}.safetensors.index.json`,
    `${stem}.fp16.safetensors`,
    `${stem}.safetensors.index.fp16.json`,
    `${stem}.fp16.safetensors.index.json`,
    ...(stem === 'model' ? ['pytorch_model'] : [stem]).flatMap((torch) => [
      `${torch}.bin`,
      `${torch}.bin.index.json`,
      `${torch}.fp16.bin`,
      `${torch}.bin.index.fp16.json`,
      `${torch}.fp16.bin.index.json`,
    ]),
  ];
  const found = known.find((name) => present.has(name));
  if (found) return nameIn(folder, found);
  const names = [...present].sort();
  const pickle = names.find((name) => /\.(?:bin|bin\.index\.json|pt|pth|ckpt|pkl)$/.test(name));
  if (pickle)
    throw new ModelError(
      `${files.describe(nameIn(folder, pickle))}: expected weights by another name, such as ${known[0]}; ${convert}`,
    );
  const other = names.find((name) => name.endsWith('.safetensors'));
  throw new ModelError(
    `${files.describe(nameIn(folder, known[0]!))}: no such file${other ? ` (there is ${quote(other)})` : ''}`,
  );
}

/** Returns the names of what is in a folder. @throws ModelError if there is no such folder. */
export async function entries(files: Files, folder: string): Promise<ReadonlySet<string>> {
  const names = await files.list(folder);
  if (!names) throw new ModelError(`${files.describe(folder)}: no such folder`);
  return new Set(names);
}
