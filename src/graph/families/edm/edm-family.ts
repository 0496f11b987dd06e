// The folder of an EDM model: `config.json` with the arguments of EDMPrecond and its network, `model.safetensors`, and
// optionally a second network in `uncond/` that is not conditioned on a class.

import { z } from 'zod';
import { ModelError } from '../../../errors.ts';
import type { Files } from '../../files/files.ts';
import { checked, readJson } from '../../files/json.ts';
import type { EdmConfig } from '../../networks/edm-config.ts';
import { parseEdmConfig, readEdmConfig } from '../../networks/read-edm-config.ts';
import { type Card, readCard } from '../../folders/card.ts';
import { headLabels, namedLabels } from '../../folders/labels.ts';
import { entries, findWeights, type WeightFile } from '../../folders/weights.ts';

/** A network of EDM and the file of its weights. */
export interface EdmNetworkFiles extends WeightFile {
  readonly network: EdmConfig;
}

/** An EDM model (Karras et al. 2022): its levels are sigmas, and it predicts the clean image. */
export interface EdmFolder extends EdmNetworkFiles {
  readonly kind: 'edm';
  readonly card: Card | undefined;
  /** The name of every class, in the order of their numbers; empty for a network that is not conditioned on a class. */
  readonly labels: readonly string[];
  /** The network that predicts without a class, if the folder has one. */
  readonly uncond: EdmNetworkFiles | undefined;
}

/** How a pickle of EDM becomes safetensors. */
const CONVERT = 'convert them once (diffclass-stream convert FILE FOLDER)';

/** Reads the folder of an EDM model. @throws ModelError naming the file that is missing, broken or not supported. */
export async function readEdmFolder(files: Files): Promise<EdmFolder> {
  const file = files.describe('config.json');
  const raw = await readJson(files, 'config.json');
  const network = parseEdmConfig(raw, file);
  const { id2label } = checked(z.object({ id2label: z.record(z.string(), z.string()).nullish() }), raw, file);
  const card = await readCard(files, undefined);
  return {
    kind: 'edm',
    files,
    network,
    weights: await findWeights(files, '', 'model', CONVERT),
    card,
    labels: edmLabels(id2label ?? undefined, network, card, file),
    uncond: (await entries(files, '')).has('uncond') ? await readUncond(files, network) : undefined,
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

/** Reads the network in `uncond/`, which belongs to the conditional network `main`. */
async function readUncond(files: Files, main: EdmConfig): Promise<EdmNetworkFiles> {
  const network = await readEdmConfig(files, 'uncond/config.json');
  const refuse = (what: string) => new ModelError(`${files.describe('uncond/config.json')}: ${what}`);
  if (network.heads !== undefined)
    throw refuse(`expected a network with one prediction, got ${network.heads} heads`);
  if (network.labelDim !== 0)
    throw refuse(
      `expected label_dim 0, as the network is not conditioned on a class, got ${network.labelDim}`,
    );
  for (const [key, actual, expected] of [
    ['img_resolution', network.imgResolution, main.imgResolution],
    ['img_channels', network.imgChannels, main.imgChannels],
  ] as const)
    if (actual !== expected)
      throw refuse(`expected ${key} ${expected} as in the conditional network, got ${actual}`);
  return { network, files, weights: await findWeights(files, 'uncond', 'model', CONVERT) };
}

/** Returns the model that predicts without a class: the network in `uncond/` if there is one, else the model itself. */
export function withoutClass(folder: EdmFolder): EdmFolder {
  return folder.uncond ? { ...folder, ...folder.uncond, labels: [], uncond: undefined } : folder;
}

/**
 * Returns the number that means "no class" to the network, or undefined if there is none. A class-conditional network has
 * one if it was trained with label dropout (Karras et al. train theirs without). For a multi-head network it is the number
 * of classes: the unconditional head if there is one, else the mean of all heads.
 */
export function nullLabel({
  network: { labelDim, labelDropout, heads },
  labels,
}: EdmFolder): number | undefined {
  if (heads !== undefined) return labels.length;
  return labelDim === 0 || labelDropout > 0 ? labelDim : undefined;
}
