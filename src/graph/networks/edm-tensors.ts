// The tensors of EDM's networks under the names of EDMPrecond's state.

import { ModelError } from '../../errors.ts';
import { type ExpectedTensor, tensorList } from '../files/expected-tensors.ts';
import { type Parameters, parametersOf } from '../files/parameters.ts';
import type { TensorFile } from '../files/safetensors.ts';
import { type EdmBlock, edmBlocks } from './edm-blocks.ts';
import type { EdmConfig } from './edm-config.ts';

/** Width of the embedding that every block sees, and of the sinusoids of the noise level. */
export const embeddingWidths = ({ modelChannels, channelMultEmb, channelMultNoise }: EdmConfig) => ({
  embedding: modelChannels * channelMultEmb,
  noise: modelChannels * channelMultNoise,
});

/** Whether a block's skip is a 1x1 convolution: in a SongUNet also where it only resamples. */
export const skipProjects = ({ modelType }: EdmConfig, { from, to, resample }: EdmBlock): boolean =>
  from !== to || (resample !== undefined && modelType === 'SongUNet');

/** All tensors but the resampling filters, which are no weights. */
export function edmTensors(config: EdmConfig): readonly ExpectedTensor[] {
  const { all, conv, linear, norm } = tensorList();
  const { modelType, labelDim, augmentDim, imgChannels, imgResolution, heads = 1 } = config;
  const isSong = modelType === 'SongUNet';
  const { embedding, noise } = embeddingWidths(config);
  if (labelDim > 0) linear('model.map_label', labelDim, isSong ? noise : embedding, isSong);
  if (augmentDim > 0) linear('model.map_augment', augmentDim, noise, false);
  linear('model.map_layer0', noise, embedding);
  linear('model.map_layer1', embedding, embedding);

  const block = (part: string, made: EdmBlock): void => {
    const { name, from, to, heads } = made;
    const under = `model.${part}.${name}`;
    if (heads === undefined) {
      conv(under, from, to);
      return;
    }
    norm(`${under}.norm0`, from);
    conv(`${under}.conv0`, from, to);
    linear(`${under}.affine`, embedding, isSong ? to : 2 * to);
    norm(`${under}.norm1`, to);
    conv(`${under}.conv1`, to, to);
    if (skipProjects(config, made)) conv(`${under}.skip`, from, to, 1);
    if (heads === 0) return;
    norm(`${under}.norm2`, to);
    conv(`${under}.qkv`, to, 3 * to, 1);
    conv(`${under}.proj`, to, to, 1);
  };
  const { encoder, decoder, channels } = edmBlocks(config);
  for (const made of encoder) block('enc', made);
  for (const made of decoder) block('dec', made);
  const { outNorm, outConv } = outputNames(modelType, imgResolution);
  norm(outNorm, channels);
  conv(outConv, channels, heads * imgChannels);
  return all;
}

/** What the output's norm and convolution are called. */
export function outputNames(modelType: EdmConfig['modelType'], imgResolution: number) {
  const last = `model.dec.${imgResolution}x${imgResolution}_aux`;
  return modelType === 'SongUNet'
    ? { outNorm: `${last}_norm`, outConv: `${last}_conv` }
    : { outNorm: 'model.out_norm', outConv: 'model.out_conv' };
}

/**
 * The weights of an EDM network. The filters of its resampling, which EDM keeps in its state, may be there or not.
 * @throws ModelError where the file does not hold the network's tensors, or a filter that is not the mean of 2x2.
 */
export async function edmParameters(file: TensorFile, config: EdmConfig): Promise<Parameters> {
  const tensors = new Map(file.tensors);
  const { encoder, decoder } = edmBlocks(config);
  for (const [part, blocks] of [
    ['enc', encoder],
    ['dec', decoder],
  ] as const)
    for (const { name } of blocks.filter(({ resample }) => resample))
      for (const of of ['conv0', 'skip']) {
        const filter = `model.${part}.${name}.${of}.resample_filter`;
        const shape = tensors.get(filter)?.shape;
        if (!shape) continue;
        if (shape.join() !== '1,1,2,2')
          throw new ModelError(
            `${file.path}: wrong shape "${filter}" has [${shape.join(', ')}], wanted [1, 1, 2, 2]`,
          );
        const values = await file.readF32(filter);
        if (values.some((value) => value !== 0.25))
          throw new ModelError(
            `${file.path}: "${filter}" is [${values.join(', ')}], only the mean of 2x2 is supported`,
          );
        tensors.delete(filter);
      }
  return parametersOf({ ...file, tensors }, edmTensors(config));
}
