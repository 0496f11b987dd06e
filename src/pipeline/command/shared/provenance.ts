// Says how a record was made, so that it can be trusted and repeated later.

import { createHash, type Hash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type Files, nameIn } from '../../../graph/files/files.ts';
import { readJson } from '../../../graph/files/json.ts';
import type { Model } from '../../../graph/model.ts';
import { readModelConfig } from '../../../graph/models/families.ts';
import { modelFiles } from '../../../graph/node/model-source.ts';

/** How a record was made. */
export interface Provenance {
  /** The version of this program. */
  readonly version: string;
  /** The name of the device that computed it; null if it has none. */
  readonly device: string | null;
  /** When the run began, in ISO 8601. */
  readonly date: string;
  /** Set if evaluations stored weights and activations as f16. */
  readonly precision?: 'f16' | undefined;
  /** What changed the model's files, such as LoRAs, by option; absent if nothing did. */
  readonly overlays?: Model['overlays'];
}

/** Reads the package.json of this program. */
export function readManifest() {
  const text = readFileSync(new URL('../../../../package.json', import.meta.url), 'utf8');
  return JSON.parse(text) as { readonly version: string; readonly engines: { readonly node: string } };
}

/** Returns the provenance of a record that is begun now with an opened model. */
export const provenanceOf = ({
  device,
  precision,
  overlays = {},
}: Pick<Model, 'device' | 'precision' | 'overlays'>): Provenance => ({
  version: readManifest().version,
  device: device ?? null,
  date: new Date().toISOString(),
  ...(precision === 'f16' && { precision }),
  ...(Object.keys(overlays).length > 0 && { overlays }),
});

/** Bytes that are read at a time to be hashed. */
const CHUNK = 2 ** 20;

/** Adds a file to a hash. */
async function hashFile(hash: Hash, files: Files, name: string): Promise<void> {
  const file = await files.open(name);
  try {
    const chunk = new Uint8Array(CHUNK);
    for (let at = 0; at < file.size; at += CHUNK) hash.update(chunk.subarray(0, await file.read(at, chunk)));
  } finally {
    await file.close();
  }
}

/** Returns the shards that an index of weights names, sorted by their names. */
async function shardsOf(files: Files, index: string): Promise<string[]> {
  const { weight_map: map } = (await readJson(files, index)) as {
    readonly weight_map: Readonly<Record<string, string>>;
  };
  const folder = index.slice(0, Math.max(0, index.lastIndexOf('/')));
  return [...new Set(Object.values(map))].sort().map((name) => nameIn(folder, name));
}

/**
 * Returns the SHA-256 of the denoising network's weights: of the file, or of all shards one after the other. Returns null
 * if the model cannot be read; opening it then reports why.
 */
export async function weightsHash(model: string): Promise<string | null> {
  try {
    const {
      config: { files, weights },
    } = await readModelConfig(await modelFiles(model));
    const hash = createHash('sha256');
    for (const name of weights.endsWith('.json') ? await shardsOf(files, weights) : [weights])
      await hashFile(hash, files, name);
    return hash.digest('hex');
  } catch {
    return null;
  }
}
