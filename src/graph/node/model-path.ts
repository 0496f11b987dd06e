// Finds the folder of a model that is given by path, by name, or by its id in the Hugging Face hub.

import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ModelError } from '../../errors.ts';
import { cachedSnapshot, hubCache, hubId, isRepository, snapshotOf } from './hub-cache.ts';

/** The model that is used if none is given. */
export const DEFAULT_MODEL = 'fashion-mnist-multi-head';

/**
 * Returns the folder of the shipped models, three folders above this file both in the sources and compiled; undefined in a
 * bundle that does not keep the addresses of modules.
 */
export function shippedFolder(): string | undefined {
  const here: string | undefined = import.meta.url;
  return here?.startsWith('file:') ? fileURLToPath(new URL('../../../weights/', here)) : undefined;
}

/** Returns the folder of a shipped model. */
export const shippedPath = (name: string): string => join(shippedFolder()!, name);

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

/** Returns the names of the shipped models, sorted; none if they are not next to this code. */
export async function shippedNames(): Promise<string[]> {
  const folder = shippedFolder();
  if (folder === undefined) return [];
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  const models = await Promise.all(
    names.map(
      async (name) =>
        (await exists(join(folder, name, 'model_index.json'))) ||
        (await exists(join(folder, name, 'config.json'))),
    ),
  );
  return names.filter((_, i) => models[i]).sort();
}

/**
 * Returns the single file of a snapshot that has no model folder but one checkpoint, as many fine-tunes are published; else
 * the snapshot itself.
 * @throws ModelError naming the files if there are several.
 */
async function checkpointOf(snapshot: string): Promise<string> {
  const names = (await readdir(snapshot)).sort();
  const checkpoints = names.filter((name) => /\.(?:safetensors|ckpt)$/.test(name));
  if (checkpoints.length === 0 || names.some((name) => name === 'model_index.json' || name === 'config.json'))
    return snapshot;
  if (checkpoints.length === 1) return join(snapshot, checkpoints[0]!);
  throw new ModelError(
    `${snapshot}: expected a model folder or one checkpoint, got ${checkpoints.length} checkpoints; give the path of one of them, such as ${join(snapshot, checkpoints[0]!)}`,
  );
}

/**
 * Returns the folder of a model that is given by path, by the name of a shipped one, or by its id in the Hugging Face hub,
 * `org/name[@revision]`, if the hub's cache has it. A path that exists takes precedence; nothing is downloaded.
 * @throws ModelError saying what there is if there is none of them.
 */
export async function modelFolder(model: string): Promise<string> {
  if (await exists(model)) return (await isRepository(model)) ? checkpointOf(await snapshotOf(model)) : model;
  const names = await shippedNames();
  if (names.includes(model)) return shippedPath(model);
  const id = hubId(model);
  const cached = id && (await cachedSnapshot(id));
  if (cached) return checkpointOf(cached);
  if (id?.id.includes('/'))
    throw new ModelError(
      `${model}: no such folder, and the Hugging Face cache ${hubCache()} has no model of this name; give the path of a model, or download one with "hf download ${id.id}${id.revision === undefined ? '' : ` --revision ${id.revision}`}"`,
    );
  if (/[/\\]/.test(model)) return model;
  throw new ModelError(
    names.length > 0
      ? `no model "${model}": expected a model folder, or one of the shipped models ${names.join(', ')}, or org/name of a model in the Hugging Face cache`
      : `no model folder "${model}", and the shipped models are not next to this code, perhaps because it was bundled: give a path, such as node_modules/diffclass-stream/weights/${DEFAULT_MODEL}`,
  );
}
