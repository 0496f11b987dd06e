import { describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import { parseVaeEncoderConfig, vaeDownscale } from '../../../src/graph/networks/vae-encoder-config.ts';

const parse = (config: Record<string, unknown>) =>
  parseVaeEncoderConfig({ _class_name: 'AutoencoderKL', ...config }, 'c');

const four = {
  block_out_channels: [128, 256, 512, 512],
  down_block_types: Array.from({ length: 4 }, () => 'DownEncoderBlock2D'),
  up_block_types: Array.from({ length: 4 }, () => 'UpDecoderBlock2D'),
};

describe('parseVaeEncoderConfig', () => {
  it("fills in diffusers' defaults", () => {
    expect(parse({})).toEqual({
      latentChannels: 4,
      blockOutChannels: [64],
      layersPerBlock: 1,
      normNumGroups: 32,
      actFn: 'silu',
      scalingFactor: 0.18215,
      shiftFactor: 0,
      useQuantConv: true,
      midBlockAddAttention: true,
      sampleSize: undefined,
    });
  });

  it.each<[what: string, config: Record<string, unknown>, expected: Record<string, unknown>]>([
    [
      'the file of Stable Diffusion 1.5',
      { ...four, _diffusers_version: '0.6.0', act_fn: 'silu', layers_per_block: 2, sample_size: 512 },
      { blockOutChannels: [128, 256, 512, 512], layersPerBlock: 2, sampleSize: [512, 512] },
    ],
    [
      'the keys of later versions',
      {
        shift_factor: null,
        latents_mean: null,
        latents_std: null,
        force_upcast: true,
        use_post_quant_conv: true,
      },
      { shiftFactor: 0, scalingFactor: 0.18215 },
    ],
    [
      'a shift and no quant_conv',
      { shift_factor: 0.1159, scaling_factor: 0.3611, use_quant_conv: false, latent_channels: 16 },
      { shiftFactor: 0.1159, scalingFactor: 0.3611, useQuantConv: false, latentChannels: 16 },
    ],
    ['another name of silu', { act_fn: 'swish' }, { actFn: 'silu' }],
    ['no attention', { mid_block_add_attention: false }, { midBlockAddAttention: false }],
  ])('understands %s', (_what, config, expected) => {
    expect(parse(config)).toMatchObject(expected);
  });

  it.each<[what: string, config: Record<string, unknown>, message: string | RegExp]>([
    [
      'another autoencoder',
      { _class_name: 'AutoencoderTiny' },
      'c: _class_name: expected AutoencoderKL, got "AutoencoderTiny"',
    ],
    [
      'latents with mean and deviation',
      { latents_mean: [0, 0, 0, 0] },
      'c: the key "latents_mean" with value [0,0,0,0] is unknown to this version',
    ],
    ['images that are not RGB', { in_channels: 1 }, 'c: in_channels: expected 3, got 1'],
    [
      'another block',
      { down_block_types: ['AttnDownEncoderBlock2D'] },
      'c: down_block_types: expected DownEncoderBlock2D, got "AttnDownEncoderBlock2D"',
    ],
    [
      'blocks that do not match',
      { block_out_channels: [32, 64] },
      'c: expected block_out_channels and down_block_types of one length, got 2 and 1',
    ],
    [
      'groups that do not divide',
      { norm_num_groups: 24 },
      'c: norm_num_groups 24 does not divide block_out_channels 64',
    ],
    [
      'another activation',
      { act_fn: 'tanh' },
      'c: act_fn: expected silu or swish or mish or gelu or relu, got "tanh"',
    ],
    ['a factor of 0', { scaling_factor: 0 }, /^c: scaling_factor: /],
    ['text for a number', { latent_channels: '4' }, /^c: latent_channels: .*number/],
  ])('refuses %s', (_what, config, message) => {
    expect(() => parse(config)).toThrow(ModelError);
    expect(() => parse(config)).toThrow(message);
  });

  it('halves the sides between levels', () => {
    expect(vaeDownscale(parse(four))).toBe(8);
    expect(vaeDownscale(parse({}))).toBe(1);
  });
});
