// What the configurations of all UNets of diffusers have in common. Types only: public declarations reach this file, and
// must not reach zod, whose types do not compile everywhere.

/** `gelu` is the exact one, x Phi(x). */
export type Activation = 'silu' | 'mish' | 'gelu' | 'relu';

/** What the configurations of all UNets say alike; the names are diffusers', in camel case. */
export interface UNetConfig {
  /** Side lengths the network was made for; undefined when the file does not say. */
  readonly sampleSize: readonly [height: number, width: number] | undefined;
  readonly inChannels: number;
  readonly outChannels: number;
  /** The input is mapped x -> 2x - 1 first. */
  readonly centerInputSample: boolean;
  /** Width of the embedding that every resnet sees. */
  readonly timeEmbeddingDim: number;
  readonly freqShift: number;
  /** [cos, sin] instead of [sin, cos]. */
  readonly flipSinToCos: boolean;
  readonly blockOutChannels: readonly number[];
  /** The middle block divides its residual sums by this. */
  readonly midBlockScaleFactor: number;
  /** Of the strided convolutions: 1, or 0 with one zero row and column added at bottom and right. */
  readonly downsamplePadding: 0 | 1;
  readonly actFn: Activation;
  readonly normNumGroups: number;
  readonly normEps: number;
  /** How the time embedding enters a resnet: added before the second norm, or as scale and shift after it. */
  readonly resnetTimeScaleShift: 'default' | 'scale_shift';
}
