// The image encoder of a latent model: its autoencoder on the device, one image at a time.

import type { Device } from '../../kernels/device/device.ts';
import type { WeightDtype } from '../../kernels/device/routine.ts';
import { checked } from '../../kernels/device/runtime.ts';
import { pitch, type Shape, toChannelMajor } from '../../kernels/device/tensor.ts';
import { input, newGraph, output } from '../core/graph.ts';
import { plan } from '../core/plan.ts';
import { weightStore } from '../core/weight-store.ts';
import type { ImageEncoder } from '../evaluation/denoiser.ts';
import { openTensorFile } from '../files/safetensors.ts';
import type { VaeFolder } from '../models/families.ts';
import { vaeEncoder, vaeEncoderParameters } from '../networks/vae-encoder.ts';
import { vaeDownscale } from '../networks/vae-encoder-config.ts';

/** An encoder that its user destroys, and the bytes that it takes on the device. */
export interface OwnedEncoder extends ImageEncoder {
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

/** Puts an autoencoder's encoder on the device, for images of one size. It returns the posterior's mean, scaled. */
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
    // Weights stay untransformed, which takes a fourth of the memory; large images amortise transforming them at every run.
    const made = await checked(device, () =>
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
