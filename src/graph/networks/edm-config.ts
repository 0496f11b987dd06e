// The configuration of EDM's preconditioned UNets (Karras et al. 2022); `read-edm-config.ts` reads it from a file.

/** The configuration of an EDM network, by EDM's names in camel case. Dropout and augmentation labels concern training only. */
export interface EdmConfig {
  /** `SongUNet` is the ddpm++ of Song et al. (2021), `DhariwalUNet` the ADM of Dhariwal and Nichol (2021). */
  readonly modelType: 'SongUNet' | 'DhariwalUNet';
  /** The side of the square images. */
  readonly imgResolution: number;
  readonly imgChannels: number;
  /**
   * The number of predictions per run of a multi-head network, which is not conditioned on a class and predicts for every
   * class (Chen et al. 2024); undefined for one prediction. EDM does not have this key.
   */
  readonly heads: number | undefined;
  /** The number of classes; 0 for a network that is not conditioned on a class. */
  readonly labelDim: number;
  /** The share of images that were trained without their class. If it is above 0, the zero label means no class. */
  readonly labelDropout: number;
  /** Standard deviation of the data, whose range is [-1, 1]. */
  readonly sigmaData: number;
  /** The range of noise levels that the network supports. */
  readonly sigmaMin: number;
  readonly sigmaMax: number;
  /** Length of the augmentation labels of the training; 0 if there were none. */
  readonly augmentDim: number;
  readonly modelChannels: number;
  readonly channelMult: readonly number[];
  /** Widths in units of modelChannels: of the embedding, and of the sinusoids that it is computed from. */
  readonly channelMultEmb: number;
  readonly channelMultNoise: number;
  /** The number of blocks per resolution in the encoder; the decoder has one more. */
  readonly numBlocks: number;
  readonly attnResolutions: readonly number[];
}

/** Returns the groups of EDM's group norms: 32, or fewer so that a group has at least 4 channels. */
export const normGroups = (channels: number): number => Math.min(32, Math.floor(channels / 4));
