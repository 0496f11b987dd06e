// The denoising network of a checkpoint in the layout of CompVis' and Stability's training code (`ldm`, `sgm`):
// `model.diffusion_model.*`. Widths, depths and numbers of layers are read from the shapes.

import { ModelError } from '../../errors.ts';
import type { VirtualTensor } from '../files/virtual-safetensors.ts';
import {
  countOf,
  headsOf64,
  type KeyRule,
  mapKeys,
  type ShapeOf,
  shapesOf,
  type Tensors,
} from './key-map.ts';

export const UNET_PREFIX = 'model.diffusion_model.';

/** More blocks than any network has; the rules of a key map grow with them. */
const MOST_BLOCKS = 128;

/** How the number of heads follows from the channels, which no shape tells: 8 heads, or heads of 64 channels. */
type HeadRule = '8 heads' | '64 channels';

const RESNET: readonly KeyRule[] = [
  [/\.in_layers\.0\./, '.norm1.'],
  [/\.in_layers\.2\./, '.conv1.'],
  [/\.out_layers\.0\./, '.norm2.'],
  [/\.out_layers\.3\./, '.conv2.'],
  [/\.emb_layers\.1\./, '.time_emb_proj.'],
  [/\.skip_connection\./, '.conv_shortcut.'],
];

const OUTER: readonly KeyRule[] = [
  [/^time_embed\.0\./, 'time_embedding.linear_1.'],
  [/^time_embed\.2\./, 'time_embedding.linear_2.'],
  [/^label_emb\.0\.0\./, 'add_embedding.linear_1.'],
  [/^label_emb\.0\.2\./, 'add_embedding.linear_2.'],
  [/^input_blocks\.0\.0\./, 'conv_in.'],
  [/^middle_block\.0\./, 'mid_block.resnets.0.'],
  [/^middle_block\.1\./, 'mid_block.attentions.0.'],
  [/^middle_block\.2\./, 'mid_block.resnets.1.'],
  [/^out\.0\./, 'conv_norm_out.'],
  [/^out\.2\./, 'conv_out.'],
];

/** Returns the rules of blocks numbered on; the last of each level's `length` blocks changes the size. */
function blockRules(blocks: number, length: number, side: 'input' | 'output'): KeyRule[] {
  const rules: KeyRule[] = [];
  const first = side === 'input' ? 1 : 0;
  for (let i = first; i < blocks; i++) {
    const [level, layer] = [Math.floor((i - first) / length), (i - first) % length];
    const block = `${side === 'input' ? 'down' : 'up'}_blocks.${level}`;
    const old = `^${side}_blocks\\.${i}`;
    rules.push(
      [new RegExp(`${old}\\.0\\.op\\.`), `${block}.downsamplers.0.conv.`],
      [new RegExp(`${old}\\.[12]\\.conv\\.`), `${block}.upsamplers.0.conv.`],
      [new RegExp(`${old}\\.0\\.`), `${block}.resnets.${layer}.`],
      [new RegExp(`${old}\\.1\\.`), `${block}.attentions.${layer}.`],
    );
  }
  return rules;
}

/** A network in diffusers' form. */
export interface MappedNetwork {
  /** Its `config.json`. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly tensors: ReadonlyMap<string, VirtualTensor>;
}

const hasAttention = (tensors: Tensors, block: string): boolean => tensors.has(`${block}.1.proj_in.weight`);

/** Returns how many transformer blocks follow a resnet. */
const depthOf = (tensors: Tensors, block: string): number =>
  Math.max(
    1,
    countOf(tensors, new RegExp(`^${block.replaceAll('.', '\\.')}\\.1\\.transformer_blocks\\.(\\d+)\\.`)),
  );

/** Returns the size conditioning of SDXL, whose first matrix takes the pooled prompt and six numbers as sinusoids. */
function additionOf(tensors: Tensors, shape: ShapeOf, pooled: number | undefined) {
  if (!tensors.has('label_emb.0.0.weight') || pooled === undefined) return {};
  const [, input = 0] = shape('label_emb.0.0.weight', 2);
  return {
    addition_embed_type: 'text_time',
    addition_time_embed_dim: (input - pooled) / 6,
    projection_class_embeddings_input_dim: input,
  };
}

/**
 * Returns the UNet2DConditionModel of a checkpoint. `tensors` are those under `model.diffusion_model.`; `side` is the side
 * of its latents; `pooled` is the length of the pooled prompt, for SDXL.
 * @throws ModelError naming the tensor that is missing or has an impossible shape.
 */
export function ldmUNet(
  tensors: Tensors,
  path: string,
  { heads, side, pooled }: { heads: HeadRule; side: number; pooled: number | undefined },
): MappedNetwork {
  const shape = shapesOf(tensors, path, UNET_PREFIX);
  const inputs = countOf(tensors, /^input_blocks\.(\d+)\./);
  const outputs = countOf(tensors, /^output_blocks\.(\d+)\./);
  if (Math.max(inputs, outputs) > MOST_BLOCKS)
    throw new ModelError(
      `${path}: expected at most ${MOST_BLOCKS} blocks in the denoising network, got more`,
    );
  const firstDown = [...Array(inputs).keys()].find((i) => tensors.has(`input_blocks.${i}.0.op.weight`));
  const perLevel = firstDown ?? inputs;
  const layers = perLevel - 1;
  const levels = Math.ceil((inputs - 1) / perLevel);
  if (layers < 1 || outputs !== levels * perLevel)
    throw new ModelError(
      `${path}: the denoising network has ${inputs} input blocks and ${outputs} output blocks, which do not mirror each other`,
    );
  const down = (level: number) => `input_blocks.${1 + level * perLevel}`;
  const up = (level: number) => `output_blocks.${level * perLevel}`;
  const all = [...Array(levels).keys()];
  const widths = all.map((level) => shape(`${down(level)}.0.out_layers.3.weight`, 4)[0]!);
  const attends = all.map((level) => hasAttention(tensors, down(level)));
  const attendsUp = all.map((level) => hasAttention(tensors, up(level)));
  const middle = hasAttention(tensors, 'middle_block');
  const attention = [...all.map(down), 'middle_block', ...all.map(up)].find((block) =>
    hasAttention(tensors, block),
  );
  if (attention === undefined)
    throw new ModelError(
      `${path}: the denoising network has no attention, so that no prompt would make a difference`,
    );
  const projection = tensors.get(`${attention}.1.proj_in.weight`)!.shape;
  const context = shape(`${attention}.1.transformer_blocks.0.attn2.to_k.weight`, 2)[1]!;
  const [model = 0, input = 0] = shape('input_blocks.0.0.weight', 4);
  const depths = all.map((level) =>
    depthOf(
      tensors,
      level === levels - 1 && middle ? 'middle_block' : attends[level] ? down(level) : up(levels - 1 - level),
    ),
  );
  const config = {
    _class_name: 'UNet2DConditionModel',
    sample_size: side,
    in_channels: input,
    out_channels: shape('out.2.weight', 4)[0]!,
    block_out_channels: widths,
    layers_per_block: layers,
    down_block_types: attends.map((is) => (is ? 'CrossAttnDownBlock2D' : 'DownBlock2D')),
    mid_block_type: middle ? 'UNetMidBlock2DCrossAttn' : 'UNetMidBlock2D',
    up_block_types: attendsUp.map((is) => (is ? 'CrossAttnUpBlock2D' : 'UpBlock2D')),
    transformer_layers_per_block: depths,
    cross_attention_dim: context,
    // diffusers' name for the number of heads.
    attention_head_dim: widths.map((width) =>
      heads === '8 heads' ? 8 : headsOf64(width, path, 'denoising network'),
    ),
    use_linear_projection: projection.length === 2,
    time_embedding_dim: shape('time_embed.0.weight', 2)[0]!,
    norm_num_groups: 32,
    ...additionOf(tensors, shape, pooled),
  };
  if (model !== widths[0])
    throw new ModelError(
      `${path}: the denoising network begins with ${model} channels and goes on with ${widths[0]}`,
    );
  const rules = [
    ...blockRules(inputs, perLevel, 'input'),
    ...blockRules(outputs, perLevel, 'output'),
    ...OUTER,
    ...RESNET,
  ];
  return { config, tensors: mapKeys(tensors, rules) };
}
