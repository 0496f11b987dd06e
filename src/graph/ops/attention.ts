// Attention over pixels or tokens: y = v softmax(scale · kᵀ q) per head and sample.

import { attention } from '../../kernels/attention/attention.ts';
import { attentionGradient } from '../../kernels/attention/attention-backward.ts';
import type { AttentionGradients } from '../../kernels/attention/attention-options.ts';
import { columns, type Shape } from '../../kernels/device/tensor.ts';
import { sliceOp } from './channels.ts';
import { check, checkShape, elements, type Op, type Shapes, same, shown } from './op.ts';
import type { Value } from './value.ts';

/** `causal`: token i of q sees only the tokens 0 to i of k and v. */
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
  flop({ inputs: { k }, output }, { heads }) {
    const keys = tokens(k!);
    return 4 * elements(output) * keys + heads * columns(output) * keys;
  },
  forward: (capabilities, { inputs }, attributes) =>
    attention(capabilities, { ...attributes, ...sizes(inputs, attributes) }),
  backward({ attributes, inputs, dy, needs, apply }) {
    const { q, k } = inputs;
    const c = q!.shape[0];
    const gradient = (of: AttentionGradients) =>
      apply(attentionGradientOp, { ...attributes, of }, { ...inputs, dy });
    const part = (x: Value, i: number) => apply(sliceOp, { from: i * c, count: c }, { x });
    const ofKeys = needs('k') || needs('v');
    if (needs('q') && ofKeys && same(q!.shape, k!.shape)) {
      const all = gradient('qkv');
      return { q: part(all, 0), k: part(all, 1), v: part(all, 2) };
    }
    const keys = ofKeys ? gradient('kv') : undefined;
    return {
      ...(needs('q') ? { q: gradient('q') } : {}),
      ...(keys ? { k: part(keys, 0), v: part(keys, 1) } : {}),
    };
  },
};

/**
 * Which gradients are computed: `q` gives dq, `kv` gives dk and dv as one value [2c, n, h, w], and `qkv` gives all three
 * as one value [3c, n, h, w], for which q must have the shape of k.
 */
export interface AttentionGradientAttributes extends AttentionAttributes {
  readonly of: AttentionGradients;
}

export const attentionGradientOp: Op<AttentionGradientAttributes> = {
  infer(inputs, attributes) {
    headsFit('attentionGradient', inputs, attributes);
    const { q, k, dy } = inputs;
    const { of } = attributes;
    checkShape('attentionGradient', 'dy', q!, dy);
    if (of === 'qkv') checkShape('attentionGradient', 'k', q!, k);
    const [c, n, h, w] = of === 'kv' ? k! : q!;
    return [of.length * c, n, h, w];
  },
  flop({ inputs: { q, k } }, { heads, of }) {
    const products = { q: 3, kv: 4, qkv: 5 }[of];
    return (2 * products * q![0] + heads) * columns(q!) * tokens(k!);
  },
  forward: (capabilities, { inputs }, attributes) =>
    attentionGradient(capabilities, { ...attributes, ...sizes(inputs, attributes) }),
};

function headsFit(op: string, { q, k, v }: Shapes, { heads, causal = false }: AttentionAttributes): void {
  check(
    q![0] % heads === 0,
    () => `${op}: expected a multiple of ${heads} channels, one part per head, got q ${shown(q)}`,
  );
  const [c, n] = q!;
  checkShape(op, 'k', causal ? q! : [c, n, k![2], k![3]], k);
  checkShape(op, 'v', k!, v);
}

const tokens = ([, , h, w]: Shape): number => h * w;
const sizes = ({ q, k }: Shapes, { heads }: AttentionAttributes) => ({
  headDim: q![0] / heads,
  n: q![1],
  queries: tokens(q!),
  keys: tokens(k!),
});
