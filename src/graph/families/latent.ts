// What latent models share: diffusers' AutoencoderKL, whose encoder turns images into latents, one image at a time.

import { ModelError } from '../../errors.ts';
import type { Device } from '../../kernels/device/device.ts';
import type { WeightDtype } from '../../kernels/device/routine.ts';
import { withMemoryCheck } from '../../kernels/device/runtime.ts';
import { pitch, type Shape, toChannelMajor } from '../../kernels/device/tensor.ts';
import { input, newGraph, output } from '../core/graph.ts';
import { plan } from '../core/plan.ts';
import { weightStore } from '../core/weight-store.ts';
import type { ImageEncoder } from '../evaluation/denoiser.ts';
import type { Files } from '../files/files.ts';
import { openTensorFile } from '../files/safetensors.ts';
import { findWeights, type WeightFile } from '../folders/weights.ts';
import { vaeEncoder, vaeEncoderParameters } from '../networks/vae-encoder.ts';
import { readVaeEncoderConfig, type VaeEncoderConfig, vaeDownscale } from '../networks/vae-encoder-config.ts';
import { CONVOLUTIONAL, diffusersNetwork } from './pipeline.ts';

/** The autoencoder of a latent model, without its weights. */
export interface VaeFolder extends WeightFile {
  readonly config: VaeEncoderConfig;
}

/**
 * Reads the autoencoder of a pipeline. Its latents must have the denoising network's `inChannels`; `networkFile` is that
 * network's configuration, for the message.
 */
export async function readVae(files: Files, inChannels: number, networkFile: string): Promise<VaeFolder> {
  const config = await readVaeEncoderConfig(files, 'vae/config.json');
  if (config.latentChannels !== inChannels)
    throw new ModelError(
      `${networkFile}: in_channels is ${inChannels}, but the autoencoder's latents have ${config.latentChannels} channels (${files.describe('vae/config.json')})`,
    );
  return { config, files, weights: await findWeights(files, 'vae', 'diffusion_pytorch_model') };
}

/** How `info` describes an autoencoder. */
export const VAE = diffusersNetwork(
  [...CONVOLUTIONAL, 'latent_channels', 'scaling_factor'],
  async (files, name, file) => vaeEncoderParameters(file, await readVaeEncoderConfig(files, name)),
);

/** An image encoder, the bytes it takes on the device, and a function that frees them. */
interface OwnedEncoder extends ImageEncoder {
  readonly bytes: number;
  destroy(): void;
}

/** Returns the shape [c, h, w] of the latent of an image [c, h, w]. */
export function latentShape(
  { config }: VaeFolder,
  [, height, width]: readonly [channels: number, height: number, width: number],
): [channels: number, height: number, width: number] {
  const factor = vaeDownscale(config);
  return [config.latentChannels, height / factor, width / factor];
}

/** Puts the encoder on the device, for images of one size. It returns the mean of the posterior, scaled. */
export async function imageEncoder(
  device: Device,
  { config, files, weights: name }: VaeFolder,
  inputShape: readonly [channels: number, height: number, width: number],
  weightDtype: WeightDtype,
): Promise<OwnedEncoder> {
  const { gpu } = device;
  const [channels, height, width] = inputShape;
  const imageShape: Shape = [channels, 1, height, width];
  const file = await openTensorFile(files, name);
  const weights = weightStore(device);
  try {
    const graph = newGraph();
    const parameters = vaeEncoderParameters(file, config);
    const latent = vaeEncoder(graph, parameters, config, input(graph, 'image', imageShape));
    output(graph, 'latent', latent);
    // Transforming the weights in every run keeps them four times smaller; large images make its cost negligible.
    const made = await withMemoryCheck(device, () =>
      plan(device, graph, { weights, weightDtype, transformedBytes: 0 }),
    );
    const image = made.inputs.get('image')!;
    const from = made.outputs.get('latent')!;
    const [c, , h, w] = latent.shape;
    const rowBytes = 4 * h * w;
    const pitchBytes = 4 * pitch(latent.shape);
    return {
      inputShape,
      bytes: made.bytes + weights.bytes(),
      encode(pixels, to) {
        gpu.queue.writeBuffer(image.buffer, image.offset, toChannelMajor(pixels, imageShape));
        const encoder = gpu.createCommandEncoder();
        const pass = encoder.beginComputePass();
        made.encode(pass);
        pass.end();
        for (let i = 0; i < c; i++)
          encoder.copyBufferToBuffer(
            from.buffer,
            from.offset + i * pitchBytes,
            to.buffer,
            to.offset + i * rowBytes,
            rowBytes,
          );
        gpu.queue.submit([encoder.finish()]);
      },
      destroy() {
        made.destroy();
        weights.destroy();
      },
    };
  } catch (error) {
    weights.destroy();
    throw error;
  } finally {
    await file.close();
  }
}
