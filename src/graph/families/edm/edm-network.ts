// The network of an EDM model with its preconditioning (Karras et al. 2022, table 1). Its levels are sigmas,
// x_sigma = x0 + sigma eps, and its errors are distances between images: D(x_sigma; sigma, class) - x0.

import type { Graph } from '../../core/graph.ts';
import type { Network } from '../../evaluation/evaluation.ts';
import { multiHead } from '../../evaluation/multi-head.ts';
import type { TensorFile } from '../../files/safetensors.ts';
import type { Coefficients } from '../../folders/schedule.ts';
import type { Level } from '../../model.ts';
import type { EdmConfig } from '../../networks/edm-config.ts';
import { edmParameters, edmUNet, labelRows, noiseRows } from '../../networks/edm-unet.ts';
import { lookUp } from '../../networks/layers.ts';
import { table, type Value } from '../../ops/value.ts';

/**
 * Returns what sigma does to an image and to the network's output F: D = c_skip x + c_out F with
 * c_skip = sd² / (sigma² + sd²) and c_out = sigma sd / sqrt(sigma² + sd²), so that eps_hat = (x - D) / sigma is
 * -sd / sqrt(sigma² + sd²) F + sigma / (sigma² + sd²) x, in which nothing cancels however small sigma is.
 */
export function edmCoefficients(sigma: number, sigmaData: number): Coefficients {
  const total = sigma ** 2 + sigmaData ** 2;
  return { a: 1, b: sigma, alpha: -sigmaData / Math.sqrt(total), beta: sigma / total };
}

/**
 * Builds the network of a configuration. The label `labelDim` stands for no class.
 * @throws ModelError if the file does not hold the network's tensors.
 */
export async function edmNetwork(
  config: EdmConfig,
  file: TensorFile,
  levels: readonly Level[],
): Promise<Network> {
  const parameters = await edmParameters(file, config);
  const { imgChannels, imgResolution, labelDim, sigmaData, heads } = config;
  const sigmas = levels.map(({ sigma }) => sigma!);
  const scales = new Float32Array(levels.length * 2 * imgChannels);
  sigmas.forEach((sigma, k) => {
    const first = k * 2 * imgChannels;
    scales.fill(1 / Math.hypot(sigma, sigmaData), first, first + imgChannels);
  });
  const scaleTable = table('input scales', scales);
  const noiseTable = table('noise rows', noiseRows(config, sigmas));
  const labelTable = table('label rows', labelRows(config));
  const image = [imgChannels, imgResolution, imgResolution] as const;
  const run = (graph: Graph, sample: Value, level: Value, label?: Value): Value => {
    return edmUNet(graph, parameters, config, {
      sample,
      scale: lookUp(graph, scaleTable, levels.length, level),
      noise: lookUp(graph, noiseTable, levels.length, level),
      ...(label && labelDim > 0 ? { label: lookUp(graph, labelTable, labelDim + 1, label) } : {}),
    });
  };
  if (heads !== undefined) return multiHead(image, run);
  return { image, predict: (graph, { xt, level, label }) => run(graph, xt, level, label) };
}
