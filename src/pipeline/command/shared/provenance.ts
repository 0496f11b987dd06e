// Says how a record was made, so that it can be trusted and repeated later.

import { createHash } from 'node:crypto';
import { createReadStream, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Model } from '../../../graph/model.ts';
import { readModelConfig } from '../../../graph/models/families.ts';
import { folderFiles } from '../../../graph/node/folder-files.ts';

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

/** Returns the shards that an index of weights names, sorted by their names. */
async function shardsOf(index: string): Promise<string[]> {
  const { weight_map: map } = JSON.parse(await readFile(index, 'utf8')) as {
    readonly weight_map: Readonly<Record<string, string>>;
  };
  return [...new Set(Object.values(map))].sort().map((name) => join(dirname(index), name));
}

/**
 * Returns the SHA-256 of the denoising network's weights: of the file, or of all shards one after the other. Returns null
 * if the folder cannot be read; opening the model then reports why.
 */
export async function weightsHash(folder: string): Promise<string | null> {
  try {
    const {
      config: { files, weights: name },
    } = await readModelConfig(folderFiles(folder));
    const weights = files.describe(name);
    const hash = createHash('sha256');
    for (const file of weights.endsWith('.json') ? await shardsOf(weights) : [weights])
      for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
    return hash.digest('hex');
  } catch {
    return null;
  }
}
