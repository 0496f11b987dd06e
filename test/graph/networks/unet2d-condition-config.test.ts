import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/errors.ts';
import { checkTensors } from '../../../src/graph/files/expected-tensors.ts';
import type { TensorInfo } from '../../../src/graph/files/safetensors.ts';
import { timeRowLength } from '../../../src/graph/networks/time-embedding.ts';
import { crossAttentions, unet2dConditionTensors } from '../../../src/graph/networks/unet2d-condition.ts';
import { parseUNet2DConditionConfig } from '../../../src/graph/networks/unet2d-condition-config.ts';

const parse = (config: Record<string, unknown>) =>
  parseUNet2DConditionConfig({ _class_name: 'UNet2DConditionModel', ...config }, 'c');
const two = {
  block_out_channels: [32, 64],
  down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
  up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
};
const elements = (shape: readonly number[]): number => shape.reduce((product, side) => product * side, 1);

describe('parseUNet2DConditionConfig', () => {
  it("fills in diffusers' defaults, one entry per level", () => {
    expect(parse({})).toEqual({
      sampleSize: undefined,
      inChannels: 4,
      outChannels: 4,
      centerInputSample: false,
      timeEmbeddingType: 'positional',
      timeEmbeddingDim: 1280,
      freqShift: 0,
      flipSinToCos: true,
      downBlockTypes: ['CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'],
      midBlockType: 'UNetMidBlock2DCrossAttn',
      upBlockTypes: ['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D'],
      blockOutChannels: [320, 640, 1280, 1280],
      layersPerBlock: [2, 2, 2, 2],
      transformerLayers: {
        down: [[1, 1], [1, 1], [1, 1], []],
        mid: 1,
        up: [[], [1, 1, 1], [1, 1, 1], [1, 1, 1]],
      },
      addedEmbedding: undefined,
      numAttentionHeads: [8, 8, 8, 8],
      onlyCrossAttention: [false, false, false, false],
      crossAttentionDim: 1280,
      useLinearProjection: false,
      midBlockScaleFactor: 1,
      downsamplePadding: 1,
      actFn: 'silu',
      normNumGroups: 32,
      normEps: 1e-5,
      resnetTimeScaleShift: 'default',
    });
  });

  it.each<[what: string, config: Record<string, unknown>, expected: Record<string, unknown>]>([
    [
      'the file of Stable Diffusion 2.1',
      {
        _diffusers_version: '0.10.0.dev0',
        attention_head_dim: [5, 10, 20, 20],
        cross_attention_dim: 1024,
        dual_cross_attention: false,
        num_class_embeds: null,
        only_cross_attention: false,
        sample_size: 96,
        upcast_attention: true,
        use_linear_projection: true,
      },
      { numAttentionHeads: [5, 10, 20, 20], crossAttentionDim: 1024, useLinearProjection: true },
    ],
    [
      'the disabled options that later versions write',
      {
        addition_embed_type: null,
        addition_embed_type_num_heads: 64,
        addition_time_embed_dim: null,
        attention_type: 'default',
        class_embed_type: null,
        class_embeddings_concat: false,
        conv_in_kernel: 3,
        conv_out_kernel: 3,
        cross_attention_norm: null,
        encoder_hid_dim: null,
        encoder_hid_dim_type: null,
        mid_block_only_cross_attention: null,
        num_attention_heads: null,
        projection_class_embeddings_input_dim: null,
        resnet_out_scale_factor: 1.0,
        resnet_skip_time_act: false,
        reverse_transformer_layers_per_block: null,
        time_cond_proj_dim: null,
        time_embedding_act_fn: null,
        time_embedding_type: 'positional',
        timestep_post_act: null,
        upcast_attention: null,
        some_new_option: null,
        optimization_step: 100,
      },
      { crossAttentionDim: 1280 },
    ],
    ['the number of heads by its own name', { num_attention_heads: 4 }, { numAttentionHeads: [4, 4, 4, 4] }],
    [
      'lists',
      {
        ...two,
        layers_per_block: [1, 3],
        transformer_layers_per_block: [2, 1],
        only_cross_attention: [true, false],
        cross_attention_dim: [16, 16],
      },
      {
        layersPerBlock: [1, 3],
        transformerLayers: { down: [[2], []], mid: 1, up: [[], [2, 2]] },
        onlyCrossAttention: [true, false],
        crossAttentionDim: 16,
      },
    ],
    [
      'the file of Stable Diffusion XL',
      {
        block_out_channels: [320, 640, 1280],
        down_block_types: ['DownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D'],
        up_block_types: ['CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'UpBlock2D'],
        transformer_layers_per_block: [1, 2, 10],
        attention_head_dim: [5, 10, 20],
        cross_attention_dim: 2048,
        use_linear_projection: true,
        addition_embed_type: 'text_time',
        addition_embed_type_num_heads: 64,
        addition_time_embed_dim: 256,
        projection_class_embeddings_input_dim: 2816,
        reverse_transformer_layers_per_block: null,
      },
      {
        transformerLayers: { down: [[], [2, 2], [10, 10]], mid: 10, up: [[10, 10, 10], [2, 2, 2], []] },
        addedEmbedding: { sizeDim: 256, pooledDim: 1280 },
      },
    ],
    [
      'transformers per resnet',
      {
        ...two,
        layers_per_block: 2,
        transformer_layers_per_block: [[1, 3], 2],
        reverse_transformer_layers_per_block: [1, [4, 2, 1]],
      },
      { transformerLayers: { down: [[1, 3], []], mid: 2, up: [[], [4, 2, 1]] } },
    ],
    ['no middle', { mid_block_type: null }, { midBlockType: undefined }],
    ['a middle without attention', { mid_block_type: 'UNetMidBlock2D' }, { midBlockType: 'UNetMidBlock2D' }],
    ['a side that cannot be halved', { sample_size: [9, 8] }, { sampleSize: [9, 8] }],
  ])('understands %s', (_what, config, expected) => {
    expect(parse(config)).toMatchObject(expected);
  });

  it.each<[what: string, config: Record<string, unknown>, message: string | RegExp]>([
    [
      'another model',
      { _class_name: 'UNet2DModel' },
      'c: _class_name: expected UNet2DConditionModel, got "UNet2DModel"',
    ],
    [
      'an unknown key',
      { use_rope: true },
      'c: the key "use_rope" with value true is unknown to this version',
    ],
    [
      'another added embedding',
      { addition_embed_type: 'text_image' },
      /^c: addition_embed_type: expected text_time, as in Stable Diffusion XL, got "text_image", .*Kandinsky and IF do$/,
    ],
    [
      'an added embedding without its size',
      { addition_embed_type: 'text_time', addition_time_embed_dim: 256 },
      'c: addition_embed_type text_time needs addition_time_embed_dim and projection_class_embeddings_input_dim',
    ],
    [
      'an added embedding without a prompt',
      {
        addition_embed_type: 'text_time',
        addition_time_embed_dim: 256,
        projection_class_embeddings_input_dim: 1536,
      },
      'c: projection_class_embeddings_input_dim: expected more than 6 times addition_time_embed_dim, 1536, got 1536',
    ],
    [
      'a size without an added embedding',
      { addition_time_embed_dim: 256 },
      'c: addition_time_embed_dim 256 is not supported: the network takes more than a text',
    ],
    [
      'lists of transformers for one half only',
      { ...two, transformer_layers_per_block: [[1, 1], 1] },
      /^c: transformer_layers_per_block has a list per block, so reverse_transformer_layers_per_block must/,
    ],
    [
      'too few transformers',
      {
        ...two,
        transformer_layers_per_block: [[1, 1], 1],
        reverse_transformer_layers_per_block: [1, [2, 1]],
      },
      /^c: reverse_transformer_layers_per_block: expected 3 numbers from 1 on for the resnets of a block CrossAttnUpBlock2D, got \[2,1\]$/,
    ],
    ['two conditions', { dual_cross_attention: true }, /^c: dual_cross_attention true is not supported: /],
    [
      'a class embedding',
      { class_embed_type: 'projection' },
      /^c: class_embed_type "projection" is not supported: /,
    ],
    ['noise levels', { num_class_embeds: 1000 }, /^c: num_class_embeds 1000 is not supported: .*upscalers/],
    ['another encoding', { encoder_hid_dim: 4096 }, /^c: encoder_hid_dim 4096 is not supported: /],
    ['a kernel of 1', { conv_in_kernel: 1 }, /^c: conv_in_kernel 1 is not supported: /],
    ['boxes', { attention_type: 'gated' }, /^c: attention_type "gated" is not supported: .*GLIGEN/],
    ['guidance as an input', { time_cond_proj_dim: 256 }, /^c: time_cond_proj_dim 256 is not supported: /],
    [
      'an activation after the time embedding',
      { timestep_post_act: 'silu' },
      /^c: timestep_post_act "silu" is not supported: /,
    ],
    [
      'a learned time',
      { time_embedding_type: 'fourier' },
      /^c: time_embedding_type "fourier" is not supported: /,
    ],
    ['scaled sums', { resnet_out_scale_factor: 2 }, /^c: resnet_out_scale_factor 2 is not supported: /],
    [
      'a block of IF',
      { ...two, down_block_types: ['SimpleCrossAttnDownBlock2D', 'DownBlock2D'] },
      'c: down_block_types: expected CrossAttnDownBlock2D or DownBlock2D, got "SimpleCrossAttnDownBlock2D"',
    ],
    [
      'a block of K',
      { ...two, up_block_types: ['KUpBlock2D', 'UpBlock2D'] },
      'c: up_block_types: expected CrossAttnUpBlock2D or UpBlock2D, got "KUpBlock2D"',
    ],
    [
      'another middle',
      { mid_block_type: 'UNetMidBlock2DSimpleCrossAttn' },
      'c: mid_block_type: expected UNetMidBlock2DCrossAttn or UNetMidBlock2D, got "UNetMidBlock2DSimpleCrossAttn"',
    ],
    [
      'inpainting',
      { in_channels: 9 },
      'c: out_channels 4 is less than in_channels 9: the network takes more than the noised latent, as for inpainting, depth or upscaling',
    ],
    [
      'heads for other levels',
      { ...two, attention_head_dim: [5, 10, 20] },
      'c: attention_head_dim: expected 2 entries as in block_out_channels, got 3',
    ],
    [
      'more heads than channels',
      { ...two, attention_head_dim: 40 },
      'c: attention_head_dim 40 is the number of heads, and more than the 32 channels',
    ],
    [
      'prompts of two widths',
      { ...two, cross_attention_dim: [16, 24] },
      'c: cross_attention_dim: expected one number, as a prompt has one encoding, got 16 and 24',
    ],
    [
      'no cross-attention',
      {
        ...two,
        down_block_types: ['DownBlock2D', 'DownBlock2D'],
        up_block_types: ['UpBlock2D', 'UpBlock2D'],
        mid_block_type: null,
      },
      'c: no block has cross attention, so that no prompt would make a difference',
    ],
    [
      'groups that do not divide',
      { ...two, norm_num_groups: 12 },
      'c: norm_num_groups 12 does not divide block_out_channels 32',
    ],
    ['no heads', { attention_head_dim: 0 }, /^c: attention_head_dim: /],
    ['text for a number', { cross_attention_dim: '768' }, /^c: cross_attention_dim: /],
  ])('refuses %s', (_what, config, message) => {
    expect(() => parse(config)).toThrow(ModelError);
    expect(() => parse(config)).toThrow(message);
  });

  it('contains what the rows of timesteps depend on', () => {
    expect(timeRowLength(parse(two))).toBe(32);
  });
});

describe('crossAttentions', () => {
  it('lists those of Stable Diffusion', () => {
    const all = crossAttentions(parse({}));
    expect(all).toHaveLength(16);
    expect(all[0]).toEqual({ name: 'down_blocks.0.attentions.0.transformer_blocks.0.attn2', inner: 320 });
    expect(all[6]).toEqual({ name: 'mid_block.attentions.0.transformer_blocks.0.attn2', inner: 1280 });
    expect(all[15]).toEqual({ name: 'up_blocks.3.attentions.2.transformer_blocks.0.attn2', inner: 320 });
  });
  it('lists both attentions of a block with cross-attention only, for every block', () => {
    const config = {
      ...two,
      only_cross_attention: [true, false],
      transformer_layers_per_block: 2,
      layers_per_block: 1,
    };
    const names = crossAttentions(parse({ ...config, mid_block_type: null })).map(({ name }) => name);
    const of = (block: string) =>
      [0, 1].flatMap((i) => ['attn1', 'attn2'].map((attn) => `${block}.transformer_blocks.${i}.${attn}`));
    expect(names).toEqual([
      ...of('down_blocks.0.attentions.0'),
      ...of('up_blocks.1.attentions.0'),
      ...of('up_blocks.1.attentions.1'),
    ]);
  });
});

describe('unet2dConditionTensors', () => {
  interface Case {
    readonly config: Record<string, unknown>;
    readonly tensors: number;
    readonly parameters: number;
    readonly sha256: string;
  }
  const golden = new URL('../../golden/unet2dcondition-tensors.json', import.meta.url);
  const { cases } = JSON.parse(readFileSync(golden, 'utf8')) as { cases: Case[] };

  it.each(cases)("has diffusers' names and shapes at full size: $config", ({ config, ...expected }) => {
    const recorded = unet2dConditionTensors(parse(config));
    const lines = recorded.map(({ name, shape }) => `${name}[${shape.join()}]`);
    // sorted by code points, as in Python
    const text = lines.sort((a, b) => (a < b ? -1 : 1)).join('\n');
    expect({
      tensors: recorded.length,
      parameters: recorded.reduce((sum, { shape }) => sum + elements(shape), 0),
      sha256: createHash('sha256').update(text).digest('hex'),
    }).toEqual(expected);
  });

  const expected = unet2dConditionTensors(parse(two));
  const refusal = (change: (tensors: Map<string, readonly number[]>) => void): string => {
    const all = new Map(expected.map(({ name, shape }) => [name, shape]));
    change(all);
    const info = ([name, shape]: [string, readonly number[]]): [string, TensorInfo] => [
      name,
      { name, dtype: 'F16', shape, file: 'm', begin: 0, bytes: 0 },
    ];
    try {
      checkTensors(expected, { path: 'm', tensors: new Map([...all].map(info)) });
    } catch (error) {
      expect(error).toBeInstanceOf(ModelError);
      return (error as ModelError).message;
    }
    return 'accepted';
  };

  it('is what a file is compared with; the error names the tensor', () => {
    const name = 'up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight';
    expect(refusal(() => {})).toBe('accepted');
    expect(refusal((all) => all.delete(name))).toBe(`m: missing tensor "${name}"`);
    expect(refusal((all) => all.set(name, [32, 768]))).toBe(
      `m: wrong shape "${name}": expected [32, 1280], got [32, 768]`,
    );
    expect(refusal((all) => all.set('add_embedding.linear_1.bias', [8]))).toBe(
      'm: unexpected tensor "add_embedding.linear_1.bias"',
    );
    // the other kind of projection
    const projection = 'mid_block.attentions.0.proj_in.weight';
    expect(refusal((all) => all.set(projection, [64, 64]))).toBe(
      `m: wrong shape "${projection}": expected [64, 64, 1, 1], got [64, 64]`,
    );
  });
});
