// The modules of EDM's UNets, in the order in which they run.

import type { EdmConfig } from './edm-config.ts';

/** A module of the encoder or decoder. */
export interface EdmBlock {
  /** The name in the checkpoint, such as `32x32_block0`. */
  readonly name: string;
  readonly from: number;
  readonly to: number;
  readonly resample?: 'down' | 'up' | undefined;
  /** Heads of its attention, or 0 without attention; undefined for the convolution that the encoder begins with. */
  readonly heads?: number | undefined;
  /** Whether the last unused output of the encoder is appended to its input. */
  readonly joins?: boolean;
}

/** Returns the modules of encoder and decoder. */
export function edmBlocks(config: EdmConfig): {
  readonly encoder: readonly EdmBlock[];
  readonly decoder: readonly EdmBlock[];
} {
  const { modelType, modelChannels, channelMult, numBlocks, imgResolution, imgChannels } = config;
  const isSong = modelType === 'SongUNet';
  const attends = (resolution: number) => config.attnResolutions.includes(resolution);
  // A SongUNet has one head of all channels; a DhariwalUNet has heads of 64 channels, and none if there are fewer.
  const heads = (attention: boolean, channels: number) =>
    attention ? (isSong ? 1 : Math.floor(channels / 64)) : 0;
  const encoder: EdmBlock[] = [];
  const decoder: EdmBlock[] = [];
  let channels = isSong ? modelChannels : modelChannels * channelMult[0]!;

  channelMult.forEach((mult, level) => {
    const resolution = imgResolution >> level;
    const name = `${resolution}x${resolution}`;
    if (level === 0) encoder.push({ name: `${name}_conv`, from: imgChannels, to: channels });
    else encoder.push({ name: `${name}_down`, from: channels, to: channels, resample: 'down', heads: 0 });
    for (let i = 0; i < numBlocks; i++) {
      const to = modelChannels * mult;
      encoder.push({
        name: `${name}_block${i}`,
        from: channels,
        to,
        heads: heads(attends(resolution), to),
      });
      channels = to;
    }
  });

  const skips = encoder.map(({ to }) => to);
  for (let level = channelMult.length - 1; level >= 0; level--) {
    const resolution = imgResolution >> level;
    const name = `${resolution}x${resolution}`;
    if (level === channelMult.length - 1) {
      decoder.push({ name: `${name}_in0`, from: channels, to: channels, heads: heads(true, channels) });
      decoder.push({ name: `${name}_in1`, from: channels, to: channels, heads: 0 });
    } else decoder.push({ name: `${name}_up`, from: channels, to: channels, resample: 'up', heads: 0 });
    for (let i = 0; i <= numBlocks; i++) {
      const to = modelChannels * channelMult[level]!;
      const attention = attends(resolution) && (!isSong || i === numBlocks);
      decoder.push({
        name: `${name}_block${i}`,
        from: channels + skips.pop()!,
        to,
        heads: heads(attention, to),
        joins: true,
      });
      channels = to;
    }
  }
  return { encoder, decoder };
}
