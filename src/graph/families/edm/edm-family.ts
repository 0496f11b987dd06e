// EDM models (Karras et al. 2022): `config.json` with the arguments of EDMPrecond and its network, `model.safetensors`, and
// optionally a second network in `uncond/` that is not conditioned on a class. Levels are sigmas, and the network predicts
// the clean image.

import { z } from 'zod';
import { ModelError, UnsupportedError } from '../../../errors.ts';
import type { Files } from '../../files/files.ts';
import { checked } from '../../files/json.ts';
import { type Card, readCard } from '../../folders/card.ts';
import { headLabels, id2labelSchema, namedLabels } from '../../folders/labels.ts';
import { findWeights, type WeightFile } from '../../folders/weights.ts';
import type { Level } from '../../model.ts';
import type { EdmConfig } from '../../networks/edm-config.ts';
import { edmParameters } from '../../networks/edm-unet.ts';
import { parseEdmConfig, readEdmConfig } from '../../networks/read-edm-config.ts';
import { rdcLevels, sumTemperature } from '../../sigmas.ts';
import { gridShare, visitingOrder } from '../../visiting.ts';
import type { Family, ModelConfig, NetworkKind } from '../family.ts';
import { edmCoefficients, edmNetwork } from './edm-network.ts';

/** A network of EDM and the file of its weights. */
interface EdmNetworkFiles extends WeightFile {
  readonly network: EdmConfig;
}

/** An EDM model without its weights. */
interface EdmModelConfig extends ModelConfig, EdmNetworkFiles {
  /** The name of every class, in the order of their numbers; empty for a network that is not conditioned on a class. */
  readonly labels: readonly string[];
  /** The network that predicts without a class, if the model has one. */
  readonly uncond: EdmNetworkFiles | undefined;
}

/** The class in `config.json`. */
const EDM = 'EDMPrecond';

/** How a pickle of EDM becomes safetensors. */
const CONVERT = 'convert them once (diffclass-stream convert FILE FOLDER)';

function edmLabels(
  id2label: Readonly<Record<string, string>> | undefined,
  { labelDim, heads }: EdmConfig,
  card: Card | undefined,
  file: string,
): readonly string[] {
  if (heads !== undefined) return headLabels(id2label, heads, card, file);
  const given = Object.keys(id2label ?? {}).length;
  if (given > labelDim)
    throw new ModelError(
      `${file}: expected id2label to name at most ${labelDim} classes (label_dim), got ${given}`,
    );
  if (card?.classes !== undefined && card.classes > labelDim)
    throw new ModelError(
      `${file}: expected a card of at most ${labelDim} classes (label_dim), got ${card.classes}`,
    );
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

/** Returns RDC's grid in visiting order. */
function rdcSigmas(sigmaData: number): Level[] {
  const grid = rdcLevels({ sigmaData });
  return visitingOrder(grid.map(gridShare)).map((i) => grid[i]!);
}

const NETWORK: NetworkKind = {
  stem: 'model',
  numbers: [
    'model_type',
    'img_resolution',
    'img_channels',
    'label_dim',
    'label_dropout',
    'augment_dim',
    'sigma_data',
    'model_channels',
    'channel_mult',
    'num_blocks',
    'attn_resolutions',
  ],
  check: async (files, name, file) => edmParameters(file, await readEdmConfig(files, name)),
};

export const edmFamily: Family<EdmModelConfig> = {
  batch: 64,
  recognise: ({ name, className }) => name === 'config.json' && className === EDM,
  async config(files, { name, json, present }) {
    const file = files.describe(name);
    const network = parseEdmConfig(json, file);
    const { id2label } = checked(z.object({ id2label: id2labelSchema }), json, file);
    const card = await readCard(files, undefined);
    return {
      files,
      network,
      weights: await findWeights(files, '', 'model', CONVERT),
      card,
      labels: edmLabels(id2label ?? undefined, network, card, file),
      uncond: present.has('uncond') ? await readUncond(files, network) : undefined,
    };
  },
  images: ({ network: { imgChannels, imgResolution } }) => ({
    inputShape: [imgChannels, imgResolution, imgResolution],
  }),
  levels({ files, card, network: { sigmaMin, sigmaMax, sigmaData } }) {
    const own = card?.sigmas?.map((sigma, i) => ({ sigma, weight: card.weights?.[i] ?? 1 }));
    return {
      numTrainTimesteps: 0,
      sigmaData,
      levels: own ?? rdcSigmas(sigmaData),
      residual: 'x0',
      // Differences of weighted sums, as in RDC's code.
      temperature: sumTemperature,
      coefficients({ t, sigma }) {
        if (sigma === undefined || !(sigma > 0 && sigma >= sigmaMin && sigma <= sigmaMax && sigma < Infinity))
          throw new UnsupportedError(
            `${files.name}: expected a sigma above ${sigmaMin}${sigmaMax < Infinity ? ` up to ${sigmaMax}` : ''}, got ${sigma === undefined ? `timestep ${t}` : `sigma ${sigma}`}`,
          );
        return edmCoefficients(sigma, sigmaData);
      },
    };
  },
  candidates({ network: { labelDim, labelDropout, heads }, labels, uncond }) {
    // The zero label stands for no class if the network was trained with it. A multi-head network has a head for no class
    // after those of the classes, or the mean of its heads stands for it.
    const zeroLabel = labelDim === 0 || labelDropout > 0 ? labelDim : undefined;
    return {
      conditioning: 'class',
      labels,
      heads,
      nullClass: heads === undefined ? zeroLabel : labels.length,
      whyNoClasses: 'label_dim is 0',
      whyNoNullClass: uncond
        ? 'the network in uncond/ is another one, and is opened alone'
        : 'its network was trained with label_dropout 0, and there is none in uncond/',
    };
  },
  network: async ({ network }, { file, levels }) => ({ network: await edmNetwork(network, file, levels) }),
  unconditional: (config) =>
    config.uncond ? { ...config, ...config.uncond, labels: [], uncond: undefined } : config,
  describe: ({ name, className, present }) =>
    name === 'config.json' && className === EDM
      ? (present.has('uncond') ? ['.', 'uncond'] : ['.']).map((part) => ({
          part,
          className,
          network: NETWORK,
        }))
      : [],
};
