// The folder of an EDM model: `config.json` with the arguments of EDMPrecond and its network, `model.safetensors`, and
// perhaps a second network in `uncond/`, which is told no class.

import { basename, join, resolve } from 'node:path';
import { z } from 'zod';
import { ModelError } from '../../errors.ts';
import { checked, readJson } from '../files/json.ts';
import type { EdmConfig } from '../networks/edm-config.ts';
import { parseEdmConfig, readEdmConfig } from '../networks/read-edm-config.ts';
import { type Card, readCard } from './card.ts';
import { headLabels, namedLabels } from './labels.ts';
import { findWeights } from './weights.ts';

/** A network of EDM and the file of its weights. */
export interface EdmNetworkFiles {
  readonly network: EdmConfig;
  readonly weights: string;
}

/** An EDM model (Karras et al. 2022): levels are sigmas, what is predicted is the clean image. */
export interface EdmFolder extends EdmNetworkFiles {
  readonly kind: 'edm';
  readonly path: string;
  /** The folder's own name. */
  readonly name: string;
  readonly card: Card | undefined;
  /** The name of every class, in the order of their numbers; empty for a network that is told none. */
  readonly labels: readonly string[];
  /** The network that predicts without a class, where the folder has one. */
  readonly uncond: EdmNetworkFiles | undefined;
}

/** What findWeights says of a pickle. */
const CONVERT = 'convert them once (diffclass-stream convert FILE FOLDER)';

/**
 * Reads the folder of an EDM model; `top` are the names of what is in it.
 * @throws ModelError naming the file, for whatever is missing, broken or not supported.
 */
export async function readEdmFolder(path: string, top: ReadonlySet<string>): Promise<EdmFolder> {
  const file = join(path, 'config.json');
  const raw = await readJson(file);
  const network = parseEdmConfig(raw, file);
  const { id2label } = checked(z.object({ id2label: z.record(z.string(), z.string()).nullish() }), raw, file);
  const card = top.has('card.json') ? await readCard(join(path, 'card.json'), undefined) : undefined;
  return {
    kind: 'edm',
    path,
    name: basename(resolve(path)),
    network,
    weights: await findWeights(path, 'model', CONVERT),
    card,
    labels: edmLabels(id2label ?? undefined, network, card, file),
    uncond: top.has('uncond') ? await readUncond(join(path, 'uncond'), network) : undefined,
  };
}

function edmLabels(
  id2label: Readonly<Record<string, string>> | undefined,
  { labelDim, heads }: EdmConfig,
  card: Card | undefined,
  file: string,
): readonly string[] {
  if (heads !== undefined) return headLabels(id2label, heads, card, file);
  const given = Object.keys(id2label ?? {}).length;
  if (given > labelDim)
    throw new ModelError(`${file}: id2label names ${given} classes, label_dim is ${labelDim}`);
  if (card?.classes !== undefined && card.classes > labelDim)
    throw new ModelError(`${file}: the card has ${card.classes} classes, label_dim is ${labelDim}`);
  return labelDim > 0 ? namedLabels(id2label, card?.classes ?? labelDim, file) : [];
}

async function readUncond(path: string, beside: EdmConfig): Promise<EdmNetworkFiles> {
  const file = join(path, 'config.json');
  const network = await readEdmConfig(file);
  const refuse = (what: string) => new ModelError(`${file}: ${what}`);
  if (network.heads !== undefined)
    throw refuse(`${network.heads} heads, wanted a network with one prediction`);
  if (network.labelDim !== 0)
    throw refuse(`label_dim is ${network.labelDim}, wanted 0 of a network that is told no class`);
  for (const [key, got, wanted] of [
    ['img_resolution', network.imgResolution, beside.imgResolution],
    ['img_channels', network.imgChannels, beside.imgChannels],
  ] as const)
    if (got !== wanted) throw refuse(`${key} is ${got}, that of the other network ${wanted}`);
  return { network, weights: await findWeights(path, 'model', CONVERT) };
}

/**
 * The model that predicts without a class: the network in `uncond/` where there is one, else the model itself.
 */
export function withoutClass(folder: EdmFolder): EdmFolder {
  return folder.uncond ? { ...folder, ...folder.uncond, labels: [], uncond: undefined } : folder;
}

/**
 * The network's number for no class: that of the zero label, where it was trained with it (Karras et al. train their
 * class-conditional networks without), or of the head behind the classes', else the heads' mean. Undefined where there
 * is none.
 */
export function nullLabel({
  network: { labelDim, labelDropout, heads },
  labels,
}: EdmFolder): number | undefined {
  if (heads !== undefined) return labels.length;
  return labelDim === 0 || labelDropout > 0 ? labelDim : undefined;
}
