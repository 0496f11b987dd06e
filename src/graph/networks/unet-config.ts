// The part that the configurations of all UNets of diffusers have in common. This file holds types only: public declarations
// refer to it, and must not refer to zod, whose types do not compile everywhere.

/** The activations that UNets of diffusers have; `gelu` is the exact one, x Phi(x). */
export type UNetActivation = 'silu' | 'mish' | 'gelu' | 'relu';

/** The keys that all UNets of diffusers have, by diffusers' names in camel case. */
export interface UNetConfig {
  /** Height and width that the network was trained on; undefined if the file does not state them. */
  readonly sampleSize: readonly [height: number, width: number] | undefined;
  readonly inChannels: number;
  readonly outChannels: number;
  /** Whether the input is first mapped to 2·x - 1. */
  readonly centerInputSample: boolean;
  /** Width of the time embedding, which every resnet projects. */
  readonly timeEmbeddingDim: number;
  readonly freqShift: number;
  /** Whether the time embedding is [cos, sin] instead of [sin, cos]. */
  readonly flipSinToCos: boolean;
  readonly blockOutChannels: readonly number[];
  /** The number by which the middle block divides its residual sums. */
  readonly midBlockScaleFactor: number;
  /** Padding of the convolutions with stride 2: 1, or 0 with a row of zeros at the bottom and a column at the right. */
  readonly downsamplePadding: 0 | 1;
  readonly actFn: UNetActivation;
  readonly normNumGroups: number;
  readonly normEps: number;
  /** How the time embedding enters a resnet: added before the second norm, or as scale and shift after it. */
  readonly resnetTimeScaleShift: 'default' | 'scale_shift';
}
