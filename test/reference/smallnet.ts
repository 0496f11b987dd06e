// The small classifier that test/golden/apgd.py trains, in plain loops, forward and backward: two 3x3
// convolutions of stride 2 with ReLU, and a linear layer. It has no defence; attacks are measured on it.

import type { Defended } from '../../src/pipeline/attacking/defended.ts';

interface Layer {
  readonly weight: Float32Array;
  readonly bias: Float32Array;
  readonly inputs: number;
  readonly outputs: number;
}

interface Convolution extends Layer {
  readonly side: number;
  readonly taps: Int32Array;
}

/**
 * Returns the side of the output of a 3x3 convolution of stride 2 with padding 1, given the side of its
 * input.
 */
const halved = (side: number) => Math.floor((side - 1) / 2) + 1;

/** Lists the products of the convolution: for each one its positions in y, in x and in the weight. */
function tapsOf({ inputs, outputs }: Pick<Layer, 'inputs' | 'outputs'>, side: number): Int32Array {
  const small = halved(side);
  const taps: number[] = [];
  for (let o = 0; o < outputs; o++)
    for (let i = 0; i < small; i++)
      for (let j = 0; j < small; j++)
        for (let c = 0; c < inputs; c++)
          for (let k = 0; k < 9; k++) {
            const row = 2 * i - 1 + Math.floor(k / 3);
            const column = 2 * j - 1 + (k % 3);
            if (row < 0 || column < 0 || row >= side || column >= side) continue;
            taps.push(
              (o * small + i) * small + j,
              (c * side + row) * side + column,
              (o * inputs + c) * 9 + k,
            );
          }
  return Int32Array.from(taps);
}

function convolve({ weight, bias, outputs, taps, side }: Convolution, x: Float64Array): Float64Array {
  const plane = halved(side) ** 2;
  const y = Float64Array.from({ length: outputs * plane }, (_, i) => bias[Math.floor(i / plane)]!);
  for (let t = 0; t < taps.length; t += 3) y[taps[t]!]! += weight[taps[t + 2]!]! * x[taps[t + 1]!]!;
  return y;
}

function convolveBack({ weight, inputs, taps, side }: Convolution, dy: Float64Array): Float64Array {
  const dx = new Float64Array(inputs * side * side);
  for (let t = 0; t < taps.length; t += 3) dx[taps[t + 1]!]! += weight[taps[t + 2]!]! * dy[taps[t]!]!;
  return dx;
}

const relu = (x: Float64Array) => x.map((v) => Math.max(0, v));

/**
 * Makes the classifier to attack from its state dict, for images of `side` x `side` pixels and one channel.
 */
export function smallNet(weights: (name: string) => Float32Array, side = 28): Defended {
  const layer = (name: string, inputs: number, outputs: number): Layer => ({
    weight: weights(`${name}.weight`),
    bias: weights(`${name}.bias`),
    inputs,
    outputs,
  });
  const convolution = (name: string, inputs: number, outputs: number, of: number): Convolution => ({
    ...layer(name, inputs, outputs),
    side: of,
    taps: tapsOf({ inputs, outputs }, of),
  });
  const middle = halved(side);
  const conv1 = convolution('conv1', 1, 8, side);
  const conv2 = convolution('conv2', 8, 16, middle);
  const features = 16 * halved(middle) ** 2;
  const linear = layer('linear', features, 10);
  const forward = (x: Float64Array) => {
    const before1 = convolve(conv1, x);
    const before2 = convolve(conv2, relu(before1));
    const hidden = relu(before2);
    const logits = Float64Array.from({ length: 10 }, (_, o) => {
      let sum = linear.bias[o]!;
      for (let i = 0; i < features; i++) sum += linear.weight[o * features + i]! * hidden[i]!;
      return sum;
    });
    return { before1, before2, logits };
  };
  return {
    classes: 10,
    shape: [1, side, side],
    period: 1,
    logits: async (x) => forward(x).logits,
    async gradient(x, _draw, cotangent) {
      const { before1, before2, logits } = forward(x);
      const dz = cotangent(logits);
      const dHidden = before2.map((before, i) => {
        let sum = 0;
        for (let o = 0; o < 10; o++) sum += linear.weight[o * features + i]! * dz[o]!;
        return before > 0 ? sum : 0;
      });
      const dMiddle = convolveBack(conv2, dHidden).map((g, i) => (before1[i]! > 0 ? g : 0));
      return { logits, gradient: convolveBack(conv1, dMiddle) };
    },
  };
}
