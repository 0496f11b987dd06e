import { describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import { attentionHeads, parseUNet2DConfig } from '../../../src/graph/networks/unet2d-config.ts';

const parse = (config: Record<string, unknown>) =>
  parseUNet2DConfig({ _class_name: 'UNet2DModel', ...config }, 'c');
const two = {
  block_out_channels: [32, 64],
  down_block_types: ['DownBlock2D', 'AttnDownBlock2D'],
  up_block_types: ['AttnUpBlock2D', 'UpBlock2D'],
};

describe('parseUNet2DConfig', () => {
  it("fills in diffusers' defaults", () => {
    expect(parse({})).toEqual({
      sampleSize: undefined,
      inChannels: 3,
      outChannels: 3,
      centerInputSample: false,
      timeEmbeddingType: 'positional',
      timeEmbeddingDim: 896,
      freqShift: 0,
      flipSinToCos: true,
      downBlockTypes: ['DownBlock2D', 'AttnDownBlock2D', 'AttnDownBlock2D', 'AttnDownBlock2D'],
      midBlock: true,
      upBlockTypes: ['AttnUpBlock2D', 'AttnUpBlock2D', 'AttnUpBlock2D', 'UpBlock2D'],
      blockOutChannels: [224, 448, 672, 896],
      layersPerBlock: 2,
      midBlockScaleFactor: 1,
      downsamplePadding: 1,
      downsampleType: 'conv',
      upsampleType: 'conv',
      actFn: 'silu',
      attentionHeadDim: 8,
      normNumGroups: 32,
      midAttentionGroups: 32,
      normEps: 1e-5,
      resnetTimeScaleShift: 'default',
      addAttention: true,
      classEmbedding: 'none',
      numClassEmbeds: undefined,
    });
  });

  it.each<[what: string, config: Record<string, unknown>, expected: Record<string, unknown>]>([
    ['a square size', { ...two, sample_size: 28 }, { sampleSize: [28, 28] }],
    ['two sides', { ...two, sample_size: [32, 64] }, { sampleSize: [32, 64] }],
    ['a class table', { num_class_embeds: 10 }, { classEmbedding: 'table', numClassEmbeds: 10 }],
    [
      'class numbers as timesteps',
      { class_embed_type: 'timestep', num_class_embeds: 10 },
      { classEmbedding: 'timestep', numClassEmbeds: undefined },
    ],
    ['class vectors', { class_embed_type: 'identity' }, { classEmbedding: 'identity' }],
    ['scale and shift', { resnet_time_scale_shift: 'scale_shift' }, { midAttentionGroups: undefined }],
    [
      'scale and shift with a norm',
      { resnet_time_scale_shift: 'scale_shift', attn_norm_num_groups: 16 },
      { midAttentionGroups: 16 },
    ],
    ['one head', { attention_head_dim: null }, { attentionHeadDim: undefined }],
    ['no middle', { mid_block_type: null }, { midBlock: false }],
    [
      'old block names',
      { ...two, down_block_types: ['UNetResDownBlock2D', 'UNetResAttnDownBlock2D'] },
      { downBlockTypes: two.down_block_types },
    ],
    ['another name of silu', { act_fn: 'Swish' }, { actFn: 'silu' }],
    [
      'no resampling types',
      { downsample_type: null, upsample_type: 'resnet' },
      { downsampleType: 'conv', upsampleType: 'resnet' },
    ],
    [
      'disabled options, notes, EMA',
      { some_new_option: null, another: false, _name_or_path: 'x', decay: 0.9999, power: 0.75 },
      {},
    ],
    [
      'a width for the embedding',
      { time_embedding_dim: 40, time_embedding_type: 'fourier' },
      { timeEmbeddingDim: 40, timeEmbeddingType: 'fourier' },
    ],
  ])('understands %s', (_what, config, expected) => {
    expect(parse(config)).toMatchObject(expected);
  });

  it.each<[what: string, config: Record<string, unknown>, message: string | RegExp]>([
    [
      'another model',
      { _class_name: 'UNet2DConditionModel' },
      'c: _class_name: expected UNet2DModel, got "UNet2DConditionModel"',
    ],
    [
      'an unknown key',
      { use_rope: true },
      'c: the key "use_rope" with value true is unknown to this version',
    ],
    [
      'a skip block',
      { ...two, down_block_types: ['SkipDownBlock2D', 'AttnSkipDownBlock2D'], norm_num_groups: null },
      'c: down_block_types: expected DownBlock2D or AttnDownBlock2D or ResnetDownsampleBlock2D, got "SkipDownBlock2D"',
    ],
    [
      'a skip block in the upward path',
      { ...two, up_block_types: ['AttnUpBlock2D', 'SkipUpBlock2D'] },
      /^c: up_block_types: expected .*, got "SkipUpBlock2D"$/,
    ],
    [
      'a down block in the upward path',
      { ...two, up_block_types: ['DownBlock2D', 'UpBlock2D'] },
      /^c: up_block_types: expected .*, got "DownBlock2D"$/,
    ],
    [
      'another middle',
      { mid_block_type: 'UNetMidBlock2DCrossAttn' },
      'c: mid_block_type: expected UNetMidBlock2D, got "UNetMidBlock2DCrossAttn"',
    ],
    [
      'blocks that do not match',
      { ...two, block_out_channels: [32] },
      'c: expected block_out_channels, down_block_types and up_block_types of one length, got 1, 2 and 2',
    ],
    [
      'groups that do not divide',
      { ...two, norm_num_groups: 12 },
      'c: norm_num_groups 12 does not divide block_out_channels 32',
    ],
    [
      'groups of the middle',
      { ...two, attn_norm_num_groups: 12 },
      'c: attn_norm_num_groups 12 does not divide block_out_channels 64',
    ],
    ['no groups', { norm_num_groups: null }, 'c: norm_num_groups: expected a number, got null'],
    [
      'spatial norms',
      { resnet_time_scale_shift: 'spatial' },
      'c: resnet_time_scale_shift: expected default or scale_shift, got "spatial"',
    ],
    [
      'a learned time',
      { time_embedding_type: 'learned', num_train_timesteps: 1000 },
      'c: time_embedding_type: expected positional or fourier, got "learned"',
    ],
    [
      'another class embedding',
      { class_embed_type: 'projection' },
      'c: class_embed_type: expected timestep or identity, got "projection"',
    ],
    ['fir', { downsample_type: 'fir' }, 'c: downsample_type: expected conv or resnet, got "fir"'],
    ['another upsampling', { upsample_type: 'fir' }, 'c: upsample_type: expected conv or resnet, got "fir"'],
    [
      'another activation',
      { act_fn: 'tanh' },
      'c: act_fn: expected silu or swish or mish or gelu or relu, got "tanh"',
    ],
    ['padding 2', { downsample_padding: 2 }, 'c: downsample_padding: expected 0 or 1, got 2'],
    [
      'a head wider than its block',
      { ...two, attention_head_dim: 48, up_block_types: ['AttnUpBlock2D', 'AttnUpBlock2D'] },
      'c: attention_head_dim 48 is more than the 32 channels of a block with attention',
    ],
    [
      'an odd embedding',
      { ...two, block_out_channels: [33, 66], norm_num_groups: 33 },
      'c: block_out_channels 33 with freq_shift 0 gives no positional time embedding',
    ],
    [
      'a shift past the end',
      { ...two, freq_shift: 16 },
      'c: block_out_channels 32 with freq_shift 16 gives no positional time embedding',
    ],
    [
      'a size that cannot be halved',
      { ...two, sample_size: 27 },
      'c: sample_size 27 is not a multiple of 2, which 2 levels need',
    ],
    ['text for a number', { in_channels: '3' }, /^c: in_channels: .*number/],
    ['no layers', { layers_per_block: 0 }, /^c: layers_per_block: /],
    ['a negative width', { block_out_channels: [32, -64, 1, 1] }, /^c: block_out_channels\.1: /],
    ['a fraction', { num_class_embeds: 1.5 }, /^c: num_class_embeds: /],
    ['a zero factor', { mid_block_scale_factor: 0 }, /^c: mid_block_scale_factor: /],
  ])('refuses %s', (_what, config, message) => {
    expect(() => parse(config)).toThrow(ModelError);
    expect(() => parse(config)).toThrow(message);
  });

  it.each([[null], [[]], ['x'], [7]])('rejects %j instead of an object', (value) => {
    expect(() => parseUNet2DConfig(value, 'c')).toThrow(ModelError);
  });

  it('accepts a head that is wider than a block without attention', () => {
    expect(parse({ ...two, attention_head_dim: 48 }).attentionHeadDim).toBe(48);
  });
});

describe('attentionHeads', () => {
  it('counts whole heads only', () => {
    expect(attentionHeads(parse({ ...two, attention_head_dim: 8 }), 64)).toEqual({
      heads: 8,
      headDim: 8,
    });
    expect(attentionHeads(parse({ ...two, attention_head_dim: 24 }), 64)).toEqual({
      heads: 2,
      headDim: 24,
    });
    expect(attentionHeads(parse({ ...two, attention_head_dim: null }), 64)).toEqual({
      heads: 1,
      headDim: 64,
    });
  });
});
