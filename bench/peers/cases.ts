// What is compared: operators and one network as plain data, which every peer reads. Arrays are in the usual order:
// images [n, c, h, w], matrices [rows, columns], attention [n, tokens, heads, headDim].

interface CaseBase {
  /** Names the case on the command line and its folder of data. */
  readonly id: string;
  /** Floating-point operations of the definition (a multiplication and an addition count as two), if they are the point. */
  readonly flops?: number;
  /** The arrays that a peer gets, by name. */
  readonly inputs: Readonly<Record<string, readonly number[]>>;
  /** The inputs that a call uploads. The others, such as weights, are on the device before. */
  readonly uploads: readonly string[];
  readonly result: readonly number[];
}

/** y = a·b; a is a weight. */
export interface Product extends CaseBase {
  readonly op: 'gemm';
}

/** A 3x3 convolution of stride 1 that keeps the size, without a bias; or its gradient dX or dW, given dY. */
export interface Convolution extends CaseBase {
  readonly op: 'conv' | 'conv-dx' | 'conv-dw';
}

/** y = silu(groupNorm(x)). */
export interface GroupNormSilu extends CaseBase {
  readonly op: 'group-norm-silu';
  readonly groups: number;
  readonly eps: number;
}

/** y = softmax(q·kᵀ / √headDim)·v per head. */
export interface Attention extends CaseBase {
  readonly op: 'attention';
}

/** One evaluation of a shipped model's network for a batch of noised images. */
export interface Network extends CaseBase {
  readonly op: 'unet';
  /** The folder of the model. */
  readonly model: string;
}

export type Case = Product | Convolution | GroupNormSilu | Attention | Network;

const product = (side: number): Product => ({
  op: 'gemm',
  id: `gemm-${side}`,
  flops: 2 * side ** 3,
  inputs: { a: [side, side], b: [side, side] },
  uploads: ['b'],
  result: [side, side],
});

/** Returns a convolution of 8 images with 128 channels in and out. */
function convolution(op: Convolution['op'], side: number): Convolution {
  const image = [8, 128, side, side];
  const weight = [128, 128, 3, 3];
  const shared = { op, id: `${op}-${side}`, flops: 2 * 8 * side ** 2 * 128 * 128 * 9 };
  if (op === 'conv') return { ...shared, inputs: { x: image, weight }, uploads: ['x'], result: image };
  if (op === 'conv-dx') return { ...shared, inputs: { dy: image, weight }, uploads: ['dy'], result: image };
  return { ...shared, inputs: { x: image, dy: image }, uploads: ['x', 'dy'], result: weight };
}

const groupNormSilu: GroupNormSilu = {
  op: 'group-norm-silu',
  id: 'group-norm-silu',
  groups: 32,
  eps: 1e-5,
  inputs: { x: [8, 128, 32, 32], gamma: [128], beta: [128] },
  uploads: ['x'],
  result: [8, 128, 32, 32],
};

const tokens = [8, 256, 4, 64] as const;

const attention: Attention = {
  op: 'attention',
  id: 'attention',
  flops: 4 * 8 * 4 * 256 * 256 * 64,
  inputs: { q: tokens, k: tokens, v: tokens },
  uploads: ['q', 'k', 'v'],
  result: tokens,
};

/** The images of one run of the network. PyTorch and this library are both close to their fastest at this size. */
const BATCH = 64;

const network: Network = {
  op: 'unet',
  id: 'unet-fashion-mnist',
  model: 'weights/fashion-mnist',
  inputs: { x: [BATCH, 1, 28, 28], t: [BATCH], label: [BATCH] },
  uploads: ['x'],
  result: [BATCH, 1, 28, 28],
};

export const CASES: readonly Case[] = [
  product(512),
  product(1024),
  ...[32, 16].flatMap((side) => (['conv', 'conv-dx', 'conv-dw'] as const).map((op) => convolution(op, side))),
  groupNormSilu,
  attention,
  network,
];
