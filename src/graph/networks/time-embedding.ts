// Time embeddings, computed once per noise level on the host, because software drivers compute the sine of a large argument
// inaccurately.

import type { Level } from '../model.ts';
import { type Constant, table } from '../ops/value.ts';
import type { UNetConfig } from './unet-config.ts';

/** The part of a UNet's configuration that the rows depend on. */
interface EmbeddingConfig extends Pick<UNetConfig, 'flipSinToCos' | 'freqShift' | 'blockOutChannels'> {
  readonly timeEmbeddingType: 'positional' | 'fourier';
}

/** The rows of a DiT of any width: 256 values, cosines first. */
export const TIME_ROW: EmbeddingConfig = {
  timeEmbeddingType: 'positional',
  flipSinToCos: true,
  freqShift: 1,
  blockOutChannels: [256],
};

/** Returns the length of a row: a sine and a cosine per frequency. */
export const timeRowLength = (config: EmbeddingConfig): number =>
  config.timeEmbeddingType === 'fourier' ? 2 * config.blockOutChannels[0]! : config.blockOutChannels[0]!;

/**
 * Returns the sinusoids of timesteps (or, for the class embedding `timestep`, of class numbers), one row per time. The
 * embedding `positional` has the frequencies 10000^(-i / (half - freqShift)) (Vaswani et al. 2017); `fourier` has
 * sinusoids of log t with 2 pi times the stored frequencies (Song et al. 2021).
 */
export function timeRows(
  config: EmbeddingConfig,
  times: readonly number[],
  frequencies?: ArrayLike<number>,
): Float32Array<ArrayBuffer> {
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

/** Returns the sinusoids of an image's size, one after the other: `dim` values for each of the numbers. */
export const sizeRow = (
  { flipSinToCos, freqShift }: Pick<EmbeddingConfig, 'flipSinToCos' | 'freqShift'>,
  dim: number,
  numbers: readonly number[],
): Float32Array<ArrayBuffer> =>
  timeRows({ timeEmbeddingType: 'positional', flipSinToCos, freqShift, blockOutChannels: [dim] }, numbers);

/** Returns the rows of the timesteps of some levels as a constant. */
export const timeTable = (
  config: EmbeddingConfig,
  levels: readonly Level[],
  frequencies?: ArrayLike<number>,
): Constant =>
  table(
    'time rows',
    timeRows(
      config,
      levels.map(({ t }) => t!),
      frequencies,
    ),
  );
