// Time embeddings, computed once per noise level on the host: software drivers are not to be trusted with the
// sine of a large argument.

import type { UNetConfig } from './unet-config.ts';

/** What the rows depend on; of every UNet. */
export interface EmbeddingConfig extends Pick<UNetConfig, 'flipSinToCos' | 'freqShift' | 'blockOutChannels'> {
  readonly timeEmbeddingType: 'positional' | 'fourier';
}

/** The rows that a DiT's blocks take, whatever their width: 256 values, cosines first. */
export const TIME_ROW: EmbeddingConfig = {
  timeEmbeddingType: 'positional',
  flipSinToCos: true,
  freqShift: 1,
  blockOutChannels: [256],
};

/** Values of a row: sines and cosines of every frequency. */
export const timeRowLength = (config: EmbeddingConfig): number =>
  config.timeEmbeddingType === 'fourier' ? 2 * config.blockOutChannels[0]! : config.blockOutChannels[0]!;

/**
 * The sinusoids of timesteps (or, for the class embedding `timestep`, of class numbers), a row each.
 * positional: frequencies 10000^(-i / (half - freqShift)) (Vaswani et al. 2017); fourier: the stored frequencies
 * times 2 pi, of log t (Song et al. 2021).
 */
export function timeRows(
  config: EmbeddingConfig,
  times: readonly number[],
  frequencies?: ArrayLike<number>,
): Float32Array {
  const length = timeRowLength(config);
  const half = length / 2;
  const fourier = config.timeEmbeddingType === 'fourier';
  const flip = !fourier && config.flipSinToCos;
  const rows = new Float32Array(times.length * length);
  times.forEach((time, k) => {
    for (let i = 0; i < half; i++) {
      const angle = fourier
        ? Math.log(time) * frequencies![i]! * 2 * Math.PI
        : time * Math.exp((-Math.log(10000) * i) / (half - config.freqShift));
      rows[k * length + i + (flip ? half : 0)] = Math.sin(angle);
      rows[k * length + i + (flip ? 0 : half)] = Math.cos(angle);
    }
  });
  return rows;
}
