// The optimal denoiser of a set of labelled images, in closed form: the mean of the images from which a noised image may
// have been made, weighted by their probabilities. A diffusion model that was trained on the images for ever would learn
// this function. It classifies by its denoising errors, like every model here (Chen et al. 2024, section on the optimal
// diffusion classifier).

import { ModelError } from '../../../errors.ts';
import { product } from '../../../numbers.ts';
import { apply, concatenate, type Graph } from '../../core/graph.ts';
import type { Network } from '../../evaluation/evaluation.ts';
import { multiHead } from '../../evaluation/multi-head.ts';
import type { TensorFile } from '../../files/safetensors.ts';
import type { Level } from '../../model.ts';
import { transposedWeight } from '../../ops/conv2d.ts';
import { type Constant, table, type Value } from '../../ops/value.ts';

/** What the network is built from. */
export interface ImageSetConfig {
  readonly image: readonly [channels: number, height: number, width: number];
  /** The name of every class, in the order of their numbers. */
  readonly labels: readonly string[];
}

/** The most bytes of the images of one constant: every device binds that much, and few classes have more. */
const PART_BYTES = 2 ** 26;

/** Labelled images, sorted by class. */
interface ImageSet {
  /** Values per image. */
  readonly length: number;
  /** Index of the first image of every class, then the number of images. */
  readonly starts: readonly number[];
  /** The mean of all images. */
  readonly mean: Float64Array;
  /** Fills `into` with image i minus the mean. */
  readonly fill: (i: number, into: Float32Array) => void;
}

async function readImages(file: TensorFile, config: ImageSetConfig): Promise<ImageSet> {
  const info = file.tensors.get('images')!;
  const count = info.shape[0]!;
  const length = product(config.image);
  const bytes = info.dtype === 'U8' ? await file.read('images') : undefined;
  const floats = bytes ? undefined : await file.readF32('images');
  const valueAt = bytes ? (at: number) => bytes[at]! / 127.5 - 1 : (at: number) => floats![at]!;
  const labels = await labelsOf(file);

  const classes = config.labels.length;
  const places: number[][] = Array.from({ length: classes }, () => []);
  labels.forEach((label, i) => {
    if (!places[label])
      throw new ModelError(
        `${file.path}: expected labels from 0 to ${classes - 1}, got ${label} for image ${i}`,
      );
    places[label].push(i);
  });
  const empty = places.findIndex((list) => list.length === 0);
  if (empty >= 0)
    throw new ModelError(`${file.path}: there is no image of class ${empty} (${config.labels[empty]})`);

  const mean = new Float64Array(length);
  for (let i = 0; i < count; i++) for (let k = 0; k < length; k++) mean[k]! += valueAt(i * length + k);
  for (let k = 0; k < length; k++) mean[k]! /= count;
  const order = places.flat();
  let first = 0;
  const starts = [0, ...places.map((list) => (first += list.length))];
  return {
    length,
    starts,
    mean,
    fill(i, into) {
      const at = order[i]! * length;
      for (let k = 0; k < length; k++) into[k] = valueAt(at + k) - mean[k]!;
    },
  };
}

async function labelsOf(file: TensorFile): Promise<number[]> {
  const { dtype } = file.tensors.get('labels')!;
  const { buffer, byteOffset, byteLength } = await file.read('labels');
  if (dtype === 'U8') return [...new Uint8Array(buffer, byteOffset, byteLength)];
  if (dtype === 'I32') return [...new Int32Array(buffer, byteOffset, byteLength / 4)];
  return [...new BigInt64Array(buffer, byteOffset, byteLength / 8)].map(Number);
}

/**
 * Builds the network D(x_t; c) = Σ_i p_i x_i over the images x_i of class c, p = softmax_i(-|x_t - x_i|² / 2 sigma²); for
 * no class, over all images. It has one head per class if `classes` is set, and one for no class if `unconditional` is;
 * the products with all images are computed once for all heads.
 *
 * -|x_t - x_i|² / 2 is x_t·x_i - |x_i|² / 2 up to a term that does not depend on i. The mean of all images is subtracted
 * from them first, so that f32 loses less to cancellation: the logarithms of p are off by about 1e-6 |x|² / sigma².
 */
export async function optimalNetwork(
  config: ImageSetConfig,
  file: TensorFile,
  levels: readonly Level[],
  { classes, unconditional }: { readonly classes: boolean; readonly unconditional: boolean },
): Promise<Network> {
  const images = await readImages(file, config);
  const { length, starts, mean, fill } = images;
  const [, height, width] = config.image;
  const count = starts.at(-1)!;

  /** Returns images [from, to) as rows of a constant. */
  const imageRows = (from: number, to: number): Constant => ({
    name: `images ${from} to ${to}`,
    length: (to - from) * length,
    async values() {
      const rows = new Float32Array((to - from) * length);
      for (let i = from; i < to; i++) fill(i, rows.subarray((i - from) * length, (i - from + 1) * length));
      return rows;
    },
  });
  const halves = new Float32Array(count);
  const row = new Float32Array(length);
  for (let i = 0; i < count; i++) {
    fill(i, row);
    let half = 0;
    // x_t still contains the mean, so (x_i - mean)·mean is subtracted as well.
    for (let k = 0; k < length; k++) half += row[k]! * (row[k]! / 2 + mean[k]!);
    halves[i] = half;
  }
  const scales = table(
    'posterior scales',
    Float32Array.from(levels, ({ sigma }) => 1 / sigma! ** 2),
  );
  const bias = table('mean image', Float32Array.from(mean));

  // Each part of the set is one constant, and holds images of one class only.
  const step = Math.max(1, Math.floor(PART_BYTES / (4 * length)));
  const partsOf = (from: number, to: number) =>
    Array.from({ length: Math.ceil((to - from) / step) }, (_, k) => ({
      from: from + k * step,
      to: Math.min(to, from + (k + 1) * step),
    }));

  /** Returns the mean of the images of some parts, weighted by their probabilities: [c·h·w, n, 1, 1]. */
  const denoised = (
    graph: Graph,
    parts: readonly { readonly from: number; readonly to: number; readonly products: Value }[],
    level: Value,
  ): Value => {
    const { from } = parts[0]!;
    const { to } = parts.at(-1)!;
    const half = table(`halves ${from} to ${to}`, halves.subarray(from, to));
    const x = concatenate(
      graph,
      parts.map(({ products }) => products),
    );
    const p = apply(graph, 'posterior', { levels: levels.length }, { x, level }, { half, scales });
    let sum: Value | undefined;
    for (const part of parts) {
      const size = part.to - part.from;
      const own =
        parts.length === 1 ? p : apply(graph, 'slice', { from: part.from - from, count: size }, { x: p });
      const weight = transposedWeight(imageRows(part.from, part.to), size, length, [1, 1]);
      sum = apply(
        graph,
        'linear',
        { outChannels: length },
        { x: own, residual: sum },
        { weight, ...(sum ? {} : { bias }) },
      );
    }
    return sum!;
  };

  return multiHead(config.image, (graph, xt, level) => {
    const x = apply(graph, 'flatten', {}, { x: xt });
    const parts = starts.slice(0, -1).map((from, c) =>
      partsOf(from, starts[c + 1]!).map((part) => ({
        ...part,
        products: apply(
          graph,
          'linear',
          { outChannels: part.to - part.from },
          { x },
          { weight: imageRows(part.from, part.to) },
        ),
      })),
    );
    const heads = classes ? parts.map((ofClass) => denoised(graph, ofClass, level)) : [];
    if (unconditional) heads.push(denoised(graph, parts.flat(), level));
    return apply(graph, 'unflatten', { height, width }, { x: concatenate(graph, heads) });
  });
}
