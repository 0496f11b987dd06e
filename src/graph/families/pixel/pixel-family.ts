// Pixel models: diffusers' DDPMPipeline or DDIMPipeline of a UNet2DModel, conditioned on a class or with one output per
// class.

import { ModelError, UnsupportedError } from '../../../errors.ts';
import { quote } from '../../files/json.ts';
import { parametersOf } from '../../files/parameters.ts';
import { classLabels, headLabels } from '../../folders/labels.ts';
import type { Schedule } from '../../folders/schedule.ts';
import { unet2dTensors } from '../../networks/unet2d.ts';
import { readUNet2DConfig, type UNet2DConfig } from '../../networks/unet2d-config.ts';
import type { Family } from '../family.ts';
import {
  CONVOLUTIONAL,
  components,
  diffusersNetwork,
  openPipeline,
  type Pipeline,
  type PipelineConfig,
  timestepLevels,
} from '../pipeline.ts';
import { type PixelNetworkConfig, pixelNetwork } from './pixel-network.ts';

/** A pixel model without its weights. */
export interface PixelConfig extends PipelineConfig, PixelNetworkConfig {}

/** Returns whether a scheduler says that the network also predicts variances. */
const saysVariances = ({ varianceType }: Schedule): boolean =>
  varianceType === 'learned' || varianceType === 'learned_range';

/**
 * Returns whether a network predicts a variance per value (Nichol and Dhariwal 2021) after its prediction, in as many
 * channels. The scheduler says so, or it says nothing about variances (DDIM and most samplers have no `variance_type`):
 * diffusers has no other meaning for twice the channels. If it says that the variance is fixed, the two do not fit.
 */
const hasVariances = ({ inChannels, outChannels }: UNet2DConfig, schedule: Schedule): boolean =>
  outChannels === 2 * inChannels && (saysVariances(schedule) || schedule.varianceType === undefined);

/**
 * Returns the heads of a multi-head network (Chen et al. 2024, section on multi-head diffusion): out_channels / in_channels
 * if `multi_head` is set, or if a network without a class input has as many heads as id2label has names, or one more.
 * A scheduler with learned variances says that two outputs are not heads.
 * @throws ModelError if `multi_head` is set for a network that has no heads.
 */
function headsOf(
  { multiHead, id2label, indexFile }: Pipeline,
  unet: UNet2DConfig,
  unetFile: string,
  schedule: Schedule,
): number | undefined {
  const heads = unet.outChannels / unet.inChannels;
  const named = Object.keys(id2label ?? {}).length;
  if (!multiHead) {
    const known =
      !saysVariances(schedule) &&
      unet.classEmbedding === 'none' &&
      named > 1 &&
      (heads === named || heads === named + 1);
    return known && multiHead !== false ? heads : undefined;
  }
  if (unet.classEmbedding !== 'none')
    throw new ModelError(
      `${indexFile}: multi_head is set, but the network is conditioned on a class (${unetFile})`,
    );
  if (!Number.isInteger(heads) || heads < 2)
    throw new ModelError(
      `${unetFile}: expected out_channels to be in_channels ${unet.inChannels} per class in a multi-head model, got ${unet.outChannels}`,
    );
  return heads;
}

/** Returns what the network's output is multiplied by. @throws UnsupportedError for a timestep that it does not have. */
function outputScale({ unet, files }: PixelConfig, t: number): number {
  if (unet.timeEmbeddingType !== 'fourier') return 1;
  if (t === 0) throw new UnsupportedError(`${files.name}: its fourier time embedding has no timestep 0`);
  return 1 / t;
}

export const pixelFamily: Family<PixelConfig> = {
  batch: 128,
  recognise: ({ className }) => className === 'DDPMPipeline' || className === 'DDIMPipeline',
  async config(files, index) {
    const pipeline = openPipeline(files, index, { unet: ['UNet2DModel'] });
    const unetFile = files.describe('unet/config.json');
    const unet = await readUNet2DConfig(files, 'unet/config.json');
    if (!unet.sampleSize)
      throw new ModelError(`${unetFile}: sample_size is missing; a pixel model needs the size of its images`);
    const common = await pipeline.common('unet');
    const heads = headsOf(pipeline, unet, unetFile, common.schedule);
    if (heads === undefined && unet.outChannels !== unet.inChannels && !hasVariances(unet, common.schedule))
      throw new ModelError(
        `${unetFile}: expected out_channels ${unet.inChannels} as in_channels, got ${unet.outChannels}${common.schedule.varianceType === undefined ? '' : ` (twice as many are predictions and variances, but the scheduler's variance_type is ${quote(common.schedule.varianceType)})`}${unet.classEmbedding === 'none' ? '; a multi-head model names its classes in id2label' : ''}`,
      );
    const { id2label, indexFile } = pipeline;
    if (heads === undefined)
      return { ...common, unet, labels: classLabels(id2label, unet, common.card, indexFile) };
    return { ...common, unet, labels: headLabels(id2label, heads, common.card, indexFile), heads };
  },
  images: ({ unet }) => ({ inputShape: [unet.inChannels, ...unet.sampleSize!] }),
  levels: (config) => timestepLevels(config, 25, (t) => outputScale(config, t)),
  candidates({ unet, labels, heads }) {
    // A multi-head network has a head after those of the classes, or its mean stands for no class.
    const hasNull = heads !== undefined || unet.numClassEmbeds === labels.length + 1;
    return {
      conditioning: 'class',
      labels,
      heads,
      nullClass:
        heads === undefined && unet.classEmbedding === 'none' ? 0 : hasNull ? labels.length : undefined,
      whyNoClasses: 'it has neither num_class_embeds nor id2label',
      whyNoNullClass: 'a network with a null class has one class embedding more than names of classes',
    };
  },
  network: async (config, { file, levels }) => ({ network: await pixelNetwork(config, file, levels) }),
  describe: (index) =>
    components(index, {
      UNet2DModel: diffusersNetwork(
        [...CONVOLUTIONAL, 'attention_head_dim', 'num_class_embeds'],
        async (files, name, file) => parametersOf(file, unet2dTensors(await readUNet2DConfig(files, name))),
      ),
    }),
};
