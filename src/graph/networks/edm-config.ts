// The configuration of EDM's preconditioned UNets (Karras et al. 2022); `read-edm-config.ts` reads it from a file.

/** An EDM network; the names are EDM's, in camel case. Dropout and augmentation labels are of training only. */
export interface EdmConfig {
  /** `SongUNet` is the ddpm++ of Song et al. (2021), `DhariwalUNet` the ADM of Dhariwal and Nichol (2021). */
  readonly modelType: 'SongUNet' | 'DhariwalUNet';
  /** Side of the square images. */
  readonly imgResolution: number;
  readonly imgChannels: number;
  /**
   * Predictions of one run, of a network that is told no class and predicts for each (multi-head: Chen et al. 2024);
   * undefined for one prediction. The key is ours, EDM has none.
   */
  readonly heads: number | undefined;
  /** Classes; 0 for a network that is told none. */
  readonly labelDim: number;
  /** Share of images that were trained without their class: above 0 the zero label means no class. */
  readonly labelDropout: number;
  /** Standard deviation of the data, in the network's [-1, 1] units. */
  readonly sigmaData: number;
  /** The noise levels the network is for. */
  readonly sigmaMin: number;
  readonly sigmaMax: number;
  /** Length of the augmentation labels that training gave it; 0 without. */
  readonly augmentDim: number;
  readonly modelChannels: number;
  readonly channelMult: readonly number[];
  /** Of modelChannels: the width of the embedding, and of the rows of sinusoids in front of it. */
  readonly channelMultEmb: number;
  readonly channelMultNoise: number;
  /** Blocks of a resolution in the encoder; the decoder has one more. */
  readonly numBlocks: number;
  readonly attnResolutions: readonly number[];
}

/** Groups of EDM's group norms: 32, fewer where a group would have less than 4 channels. */
export const normGroups = (channels: number): number => Math.min(32, Math.floor(channels / 4));
