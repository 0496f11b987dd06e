// The sizes of an attention, shared by its kernels and those of its gradients.

export interface AttentionOptions {
  readonly heads: number;
  /** Channels per head. */
  readonly headDim: number;
  readonly n: number;
  /** Tokens of q and y per sample. */
  readonly queries: number;
  /** Tokens of k and v per sample. */
  readonly keys: number;
  /** Factor of the scores before the softmax, usually headDim^-1/2. */
  readonly scale: number;
  /**
   * If true, query i sees only the keys 0 to i, and `queries` must equal `keys`. Default: every query sees every key.
   */
  readonly causal?: boolean;
}

/** The gradients that y of `attentionGradient` holds: dq; dk and then dv; or all three, if there are as many queries as keys. */
export type AttentionGradients = 'q' | 'kv' | 'qkv';

export interface GradientOptions extends AttentionOptions {
  readonly of: AttentionGradients;
}
