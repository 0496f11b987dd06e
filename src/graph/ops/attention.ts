// Attention over pixels or tokens.

import { attention } from '../../kernels/attention.ts';
import { type AttentionGradients, attentionGradient } from '../../kernels/attention-backward.ts';
import { columns, type Shape } from '../../kernels/tensor.ts';
import type { Value } from '../value.ts';
import { sliceOp } from './channels.ts';
import { elements, none, type Op, type Shapes, same, text, want } from './op.ts';

/** Causal: token i of q sees the tokens 0 to i of k and v. */
export interface AttentionAttributes {
  readonly heads: number;
  readonly scale: number;
  readonly causal?: boolean;
}

export const attentionOp: Op<AttentionAttributes> = {
  infer(inputs, attributes) {
    headsFit('attention', inputs, attributes);
    return inputs.q!;
  },
  constants: none,
  flop({ inputs: { k }, output }, { heads }) {
    const keys = tokens(k!);
    return 4 * elements(output) * keys + heads * columns(output) * keys;
  },
  forward: (capabilities, { inputs }, attributes) =>
    attention(capabilities, { ...attributes, ...sizes(inputs, attributes) }),
  backward({ attributes, inputs, dy, wants, apply }) {
    const { q, k } = inputs;
    const c = q!.shape[0];
    const gradient = (of: AttentionGradients) =>
      apply(attentionGradientOp, { ...attributes, of }, { ...inputs, dy });
    const part = (x: Value, i: number) => apply(sliceOp, { from: i * c, count: c }, { x });
    const ofKeys = wants('k') || wants('v');
    if (wants('q') && ofKeys && same(q!.shape, k!.shape)) {
      const all = gradient('qkv');
      return { q: part(all, 0), k: part(all, 1), v: part(all, 2) };
    }
    const keys = ofKeys ? gradient('kv') : undefined;
    return {
      ...(wants('q') ? { q: gradient('q') } : {}),
      ...(keys ? { k: part(keys, 0), v: part(keys, 1) } : {}),
    };
  },
};

/** dq like q; dk and then dv, together [2c, n, h, w]; or all three [3c, n, h, w], where q has the shape of k. */
export interface AttentionGradientAttributes extends AttentionAttributes {
  readonly of: AttentionGradients;
}

export const attentionGradientOp: Op<AttentionGradientAttributes> = {
  infer(inputs, attributes) {
    headsFit('attentionGradient', inputs, attributes);
    const { q, k, dy } = inputs;
    const { of } = attributes;
    want(
      same(q!, dy!) && (of !== 'qkv' || same(q!, k!)),
      () => `attentionGradient: q is ${text(q)}, dy ${text(dy)}, k ${text(k)}`,
    );
    const [c, n, h, w] = of === 'kv' ? k! : q!;
    return [of.length * c, n, h, w];
  },
  constants: none,
  flop({ inputs: { q, k } }, { heads, of }) {
    const products = { q: 3, kv: 4, qkv: 5 }[of];
    return (2 * products * q![0] + heads) * columns(q!) * tokens(k!);
  },
  forward: (capabilities, { inputs }, attributes) =>
    attentionGradient(capabilities, { ...attributes, ...sizes(inputs, attributes) }),
};

function headsFit(op: string, { q, k, v }: Shapes, { heads, causal = false }: AttentionAttributes): void {
  want(q![0] % heads === 0, () => `${op}: ${q![0]} channels do not split into ${heads} heads`);
  want(
    q![0] === k![0] && same(k!, v!) && q![1] === k![1],
    () => `${op}: q ${text(q)}, k ${text(k)} and v ${text(v)} do not fit`,
  );
  want(
    !causal || same(q!, k!),
    () => `${op}: causal, so q ${text(q)} and k ${text(k)} should have the same tokens`,
  );
}

const tokens = ([, , h, w]: Shape): number => h * w;
const sizes = ({ q, k }: Shapes, { heads }: AttentionAttributes) => ({
  headDim: q![0] / heads,
  n: q![1],
  queries: tokens(q!),
  keys: tokens(k!),
});
