// Attention over pixels or tokens.

import { attention } from '../../kernels/attention.ts';
import { none, type Op, same, text, want } from './op.ts';

/** Causal: token i of q sees the tokens 0 to i of k and v. */
export interface AttentionAttributes {
  readonly heads: number;
  readonly scale: number;
  readonly causal?: boolean;
}

export const attentionOp: Op<AttentionAttributes> = {
  infer({ q, k, v }, { heads, causal = false }) {
    want(q![0] % heads === 0, () => `attention: ${q![0]} channels do not split into ${heads} heads`);
    want(
      q![0] === k![0] && same(k!, v!) && q![1] === k![1],
      () => `attention: q ${text(q)}, k ${text(k)} and v ${text(v)} do not fit`,
    );
    want(
      !causal || same(q!, k!),
      () => `attention: causal, so q ${text(q)} and k ${text(k)} should have the same tokens`,
    );
    return q!;
  },
  constants: none,
  forward: (capabilities, { inputs }, attributes) =>
    attention(capabilities, {
      ...attributes,
      headDim: inputs.q![0] / attributes.heads,
      n: inputs.q![1],
      queries: inputs.q![2] * inputs.q![3],
      keys: inputs.k![2] * inputs.k![3],
    }),
};
