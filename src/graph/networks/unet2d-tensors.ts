// The tensors a UNet2DModel must have, by name and shape, and the check of a weight file against them.

import { ModelError } from '../../kernels/errors.ts';
import { quote } from '../files/json.ts';
import type { TensorFile, TensorInfo } from '../files/safetensors.ts';
import { attentionHeads, type UNet2DConfig } from './unet2d-config.ts';

/** A tensor that a model needs. */
export interface ExpectedTensor {
  readonly name: string;
  /** As PyTorch stores it: convolutions [out, in, h, w], linear layers [out, in]. */
  readonly shape: readonly number[];
  /** What checkpoints of before 2023 call it. */
  readonly oldName?: string;
}

/**
 * All tensors of a UNet2DModel under diffusers' current names (attention: to_q,
 * to_k, to_v, to_out.0), with the old names (query, key, value, proj_attn) beside them.
 */
export function unet2dTensors(config: UNet2DConfig): readonly ExpectedTensor[] {
  const all: ExpectedTensor[] = [];
  const add = (name: string, ...shape: readonly number[]): void => void all.push({ name, shape });
  const conv = (name: string, from: number, to: number, kernel = 3): void => {
    add(`${name}.weight`, to, from, kernel, kernel);
    add(`${name}.bias`, to);
  };
  const linear = (name: string, from: number, to: number): void => {
    add(`${name}.weight`, to, from);
    add(`${name}.bias`, to);
  };
  const norm = (name: string, channels: number): void => {
    add(`${name}.weight`, channels);
    add(`${name}.bias`, channels);
  };

  const { blockOutChannels: widths, layersPerBlock: layers, timeEmbeddingDim: embedding } = config;
  const levels = widths.length;
  const first = widths[0]!;
  const last = widths.at(-1)!;

  const resnet = (name: string, from: number, to: number): void => {
    norm(`${name}.norm1`, from);
    conv(`${name}.conv1`, from, to);
    linear(`${name}.time_emb_proj`, embedding, config.resnetTimeScaleShift === 'scale_shift' ? 2 * to : to);
    norm(`${name}.norm2`, to);
    conv(`${name}.conv2`, to, to);
    if (from !== to) conv(`${name}.conv_shortcut`, from, to, 1);
  };
  const attention = (name: string, channels: number, normed = true): void => {
    const { inner } = attentionHeads(config, channels);
    if (normed) norm(`${name}.group_norm`, channels);
    for (const [now, before, from, to] of [
      ['to_q', 'query', channels, inner],
      ['to_k', 'key', channels, inner],
      ['to_v', 'value', channels, inner],
      ['to_out.0', 'proj_attn', inner, channels],
    ] as const) {
      all.push({ name: `${name}.${now}.weight`, shape: [to, from], oldName: `${name}.${before}.weight` });
      all.push({ name: `${name}.${now}.bias`, shape: [to], oldName: `${name}.${before}.bias` });
    }
  };

  conv('conv_in', config.inChannels, first);
  const fourier = config.timeEmbeddingType === 'fourier';
  if (fourier) add('time_proj.weight', first);
  const sinusoids = fourier ? 2 * first : first;
  const mlp = (name: string): void => {
    linear(`${name}.linear_1`, sinusoids, embedding);
    linear(`${name}.linear_2`, embedding, embedding);
  };
  mlp('time_embedding');
  if (config.classEmbedding === 'table') add('class_embedding.weight', config.numClassEmbeds!, embedding);
  if (config.classEmbedding === 'timestep') mlp('class_embedding');

  for (const [i, type] of config.downBlockTypes.entries()) {
    const name = `down_blocks.${i}`;
    const width = widths[i]!;
    for (let j = 0; j < layers; j++) {
      resnet(`${name}.resnets.${j}`, j === 0 ? (widths[i - 1] ?? first) : width, width);
      if (type === 'AttnDownBlock2D') attention(`${name}.attentions.${j}`, width);
    }
    if (i === levels - 1) continue;
    const byResnet =
      type === 'ResnetDownsampleBlock2D' ||
      (type === 'AttnDownBlock2D' && config.downsampleType === 'resnet');
    if (byResnet) resnet(`${name}.downsamplers.0`, width, width);
    else conv(`${name}.downsamplers.0.conv`, width, width);
  }

  if (config.midBlock) {
    resnet('mid_block.resnets.0', last, last);
    if (config.addAttention)
      attention('mid_block.attentions.0', last, config.midAttentionGroups !== undefined);
    resnet('mid_block.resnets.1', last, last);
  }

  for (const [i, type] of config.upBlockTypes.entries()) {
    const name = `up_blocks.${i}`;
    const width = widths[levels - 1 - i]!;
    const below = i === 0 ? last : widths[levels - i]!;
    const above = widths[Math.max(levels - 2 - i, 0)]!;
    for (let j = 0; j <= layers; j++) {
      const skip = j === layers ? above : width;
      resnet(`${name}.resnets.${j}`, (j === 0 ? below : width) + skip, width);
      if (type === 'AttnUpBlock2D') attention(`${name}.attentions.${j}`, width);
    }
    if (i === levels - 1) continue;
    const byResnet =
      type === 'ResnetUpsampleBlock2D' || (type === 'AttnUpBlock2D' && config.upsampleType === 'resnet');
    if (byResnet) resnet(`${name}.upsamplers.0`, width, width);
    else conv(`${name}.upsamplers.0.conv`, width, width);
  }

  norm('conv_norm_out', first);
  conv('conv_out', first, config.outChannels);
  return all;
}

/**
 * Checks that a file holds exactly the expected tensors, in their shapes, as F32, F16 or BF16. Returns where each
 * is, by its current name (`TensorInfo.name` is the name to read it by). Throws `ModelError`: one sentence with
 * the file, what is wrong, and the first few tensors concerned.
 */
export function checkTensors(
  expected: readonly ExpectedTensor[],
  file: Pick<TensorFile, 'path' | 'tensors'>,
): ReadonlyMap<string, TensorInfo> {
  const found = new Map<string, TensorInfo>();
  const extra = new Set(file.tensors.keys());
  const missing: string[] = [];
  const shapes: string[] = [];
  const dtypes: string[] = [];
  for (const { name, shape, oldName } of expected) {
    const info = file.tensors.get(name) ?? (oldName === undefined ? undefined : file.tensors.get(oldName));
    if (!info) {
      missing.push(quote(name));
      continue;
    }
    extra.delete(info.name);
    found.set(name, info);
    if (info.shape.length !== shape.length || info.shape.some((size, i) => size !== shape[i]))
      shapes.push(`${quote(info.name)} has [${info.shape.join(', ')}], wanted [${shape.join(', ')}]`);
    if (info.dtype !== 'F32' && info.dtype !== 'F16' && info.dtype !== 'BF16')
      dtypes.push(`${quote(info.name)} is ${info.dtype}, wanted F32, F16 or BF16`);
  }
  const faults = [
    complain('missing tensor', missing),
    complain('unexpected tensor', [...extra].map(quote)),
    complain('wrong shape', shapes),
    complain('wrong dtype', dtypes),
  ].filter((fault) => fault !== undefined);
  if (faults.length > 0) throw new ModelError(`${file.path}: ${faults.join('; ')}`);
  return found;
}

function complain(what: string, list: readonly string[]): string | undefined {
  if (list.length === 0) return undefined;
  const shown = list.slice(0, 3).join(', ');
  return list.length <= 3
    ? `${what}${list.length === 1 ? '' : 's'} ${shown}`
    : `${list.length} ${what}s, first ${shown}`;
}
