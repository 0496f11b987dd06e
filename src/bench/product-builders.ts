// Builds the benchmark cases of ops that are limited by arithmetic: convolutions, dense layers and attentions.

import type { Shape } from '../kernels/device/tensor.ts';
import { type BenchCase, newCase } from './case.ts';
import type { CaseOptions } from './case-options.ts';

type Kernel = readonly [height: number, width: number];
type Padding = readonly [top: number, left: number, bottom: number, right: number];

/** Joins what a name says, without the parts that do not apply. */
const joined = (parts: readonly (string | false | undefined)[]): string => parts.filter(Boolean).join(', ');

/** Returns the padding with which a convolution of an odd kernel and stride 1 keeps the size. */
const samePadding = ([height, width]: Kernel): Padding => {
  const [top, left] = [(height - 1) >> 1, (width - 1) >> 1];
  return [top, left, top, left];
};

export function conv2dCase(x: Shape, options: CaseOptions = {}): BenchCase {
  const [c, n, h, w] = x;
  const { channels = c, kernel = [3, 3], stride = 1, padding = samePadding(kernel) } = options;
  const { upsample, affine, embedding, residual, scale, bias = true, weights, compact } = options;
  const name = joined([
    `${c}->${channels} ${h}x${w} n=${n} ${kernel.join('x')}`,
    stride > 1 && `stride ${stride}`,
    compact && 'compact',
    upsample && 'upsample',
    affine && `affine ${affine}`,
    embedding && 'embedding',
    residual && 'residual',
    scale !== undefined && `scale ${scale}`,
    !bias && 'no bias',
    weights === 'f16' && 'f16',
  ]);
  const attributes = {
    outChannels: channels,
    kernel,
    stride,
    padding,
    ...(upsample ? { upsample } : {}),
    ...(affine ? { activation: affine } : {}),
    ...(scale === undefined ? {} : { scale }),
  };
  const side = (size: number, at: 0 | 1) =>
    Math.floor((size * (upsample ?? 1) + padding[at] + padding[at + 2]! - kernel[at]) / stride) + 1;
  const y: Shape = [channels, n, side(h, 0), side(w, 1)];
  return newCase('conv2d', name, {
    attributes,
    inputs: {
      x,
      ...(affine ? { affine: [2 * c, n, 1, 1] } : {}),
      ...(embedding ? { embedding: [channels, n, 1, 1] } : {}),
      ...(residual ? { residual: y } : {}),
    },
    constants: bias ? ['weight', 'bias'] : ['weight'],
    weights,
    compact,
    // PyTorch's convolution has none of what is fused here: a norm's affine map, an embedding, a residual.
    torch: { op: 'conv2d', x, outChannels: channels, kernel, bias, stride, padding, upsample: upsample ?? 1 },
  });
}

export function weightGradientCase(x: Shape, options: CaseOptions = {}): BenchCase {
  const [c, n, h, w] = x;
  const { channels = c, kernel = [3, 3], stride = 1, padding = samePadding(kernel) } = options;
  const side = (size: number, at: 0 | 1) =>
    Math.floor((size + padding[at] + padding[at + 2]! - kernel[at]) / stride) + 1;
  const dy: Shape = [channels, n, side(h, 0), side(w, 1)];
  return newCase(
    'weightGradient',
    `${c}->${channels} ${h}x${w} n=${n} ${kernel.join('x')}/${stride}, padding ${padding}`,
    {
      attributes: { kernel, stride, padding },
      inputs: { x, dy },
      torch: { op: 'weightGradient', x, outChannels: channels, kernel, stride, padding },
    },
  );
}

export function inputGradientCase(x: Shape, options: CaseOptions = {}): BenchCase {
  const [c, n, h, w] = x;
  const { channels = c, stride = 2, padding = [1, 1, 1, 1], residual = false, weights } = options;
  const side = (size: number, at: 0 | 1) =>
    Math.floor((size + padding[at] + padding[at + 2]! - 3) / stride) + 1;
  const dy: Shape = [channels, n, side(h, 0), side(w, 1)];
  const name = joined([
    `${c}->${channels} ${h}x${w} n=${n} 3x3/${stride}, padding ${padding}`,
    residual && 'residual',
    weights === 'f16' && 'f16',
  ]);
  return newCase('inputGradient', name, {
    attributes: { inChannels: c, stride, padding, size: [h, w] },
    inputs: { dy, ...(residual ? { residual: x } : {}) },
    ...(weights === undefined ? {} : { weights }),
  });
}

export function linearCase(x: Shape, options: CaseOptions = {}): BenchCase {
  const { channels = x[0], bias = true, activation, residual, scale, weights } = options;
  const name = joined([
    `${x[0]}->${channels} [${x}]`,
    !bias && 'no bias',
    activation,
    residual && 'residual',
    scale !== undefined && `scale ${scale}`,
    weights === 'f16' && 'f16',
  ]);
  return newCase('linear', name, {
    attributes: {
      outChannels: channels,
      ...(activation ? { activation } : {}),
      ...(scale === undefined ? {} : { scale }),
    },
    inputs: { x, ...(residual ? { residual: [channels, x[1], x[2], x[3]] } : {}) },
    constants: bias ? ['weight', 'bias'] : ['weight'],
    weights,
    torch: { op: 'linear', x, outChannels: channels, bias },
  });
}

/** Returns the sizes of an attention whose queries are the samples and pixels of `q`. */
function attentionParts(q: Shape, { heads, keys, causal }: CaseOptions) {
  const [c, n, h, w] = q;
  const count = heads ?? (c % 64 === 0 ? c / 64 : 1);
  const [queries, headDim] = [h * w, c / count];
  const k: Shape = [c, n, 1, keys ?? queries];
  const scale = headDim ** -0.5;
  const name = `${count}x${headDim} heads, n=${n}, ${queries} queries of ${k[3]} keys${causal ? ', causal' : ''}`;
  const sizes = { heads: count, headDim, n, queries, keys: k[3], scale, ...(causal ? { causal } : {}) };
  return {
    name,
    attributes: { heads: count, scale, ...(causal ? { causal } : {}) },
    inputs: { q: [c, n, 1, queries] as const, k, v: k },
    torch: { op: 'attention', ...sizes },
  };
}

export function attentionCase(q: Shape, options: CaseOptions = {}): BenchCase {
  const { name, ...parts } = attentionParts(q, options);
  return newCase('attention', name, parts);
}

/**
 * Returns the case of all three gradients. If the number of keys differs from that of the queries, keys and values come
 * from prompts, whose gradients are never computed, and the case is that of the queries' gradient.
 */
export function attentionGradientCase(q: Shape, options: CaseOptions = {}): BenchCase {
  const { name, attributes, inputs } = attentionParts(q, options);
  const of = inputs.q[3] === inputs.k[3] ? 'qkv' : 'q';
  return newCase('attentionGradient', name, {
    attributes: { ...attributes, of },
    inputs: { ...inputs, dy: inputs.q },
  });
}
