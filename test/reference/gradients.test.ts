// Tests the gradients of the references against finite differences of the references.

import { describe, expect, it } from 'vitest';
import { ACTIVATIONS } from '../../src/kernels/elementwise/activation.ts';
import type { GroupNormOptions } from '../../src/kernels/norm/group-norm.ts';
import { randomValues } from '../kernels/harness.ts';
import { referenceActivation, referenceSlope } from './activation.ts';
import { referenceAttention, referenceAttentionGradients } from './attention.ts';
import { worstDerivative } from './differences.ts';
import {
  referenceAffine,
  referenceGroupNormAffine,
  referenceGroupNormGradients,
  referenceLayerNorm,
  referenceLayerNormGradients,
} from './groupnorm.ts';
import { referenceErrors, referenceErrorsGradients } from './noise.ts';

describe('derivatives of the references', () => {
  it.for(ACTIVATIONS)('%s', (activation) => {
    const x = Float64Array.from({ length: 400 }, (_, i) => (i - 200) / 25 + 0.0123);
    for (const v of x)
      expect(
        worstDerivative(({ x: [at] }) => [referenceActivation(activation, at!)], { x: [v] }, [1], {
          x: [referenceSlope(activation, v)],
        }),
      ).toBeLessThan(1e-6);
  });

  it.for(['none', 'silu', 'gelu-tanh'] as const)('group norm, scale and shift, %s', (activation) => {
    const options: GroupNormOptions = { x: [6, 2, 3, 3], groups: 2, eps: 1e-5, scaleShift: true };
    const operands = {
      x: randomValues(108, 1),
      gamma: randomValues(6, 2),
      beta: randomValues(6, 3),
      embedding: randomValues(24, 4),
    };
    const dy = randomValues(108, 5);
    const made = referenceGroupNormGradients(options, activation, operands, dy);
    const worst = worstDerivative(
      (at) => referenceAffine(options.x, at.x, referenceGroupNormAffine(options, at), activation),
      operands,
      dy,
      { x: made.x, gamma: made.gamma, beta: made.beta, embedding: made.embedding },
    );
    expect(worst).toBeLessThan(1e-7);
  });

  it.for([
    { queries: 5, keys: 7, causal: false },
    { queries: 6, keys: 6, causal: true },
  ])('attention, $queries queries of $keys keys, causal $causal', (tokens) => {
    const options = { heads: 2, headDim: 3, n: 2, scale: 0.6, ...tokens };
    const [inQ, inK] = [12 * tokens.queries, 12 * tokens.keys];
    const operands = { q: randomValues(inQ, 1), k: randomValues(inK, 2), v: randomValues(inK, 3) };
    const dy = randomValues(inQ, 4);
    const made = referenceAttentionGradients(options, operands, dy);
    const worst = worstDerivative((at) => referenceAttention(options, at), operands, dy, made);
    expect(worst).toBeLessThan(1e-7);
  });

  it.for(['l2', 'huber'] as const)('errors, %s', (distance) => {
    const level = [0, 2];
    const levels = [0.9, 0.4, 0.8, 0.1, 0, 0, 0, 0, 0.5, 0.8, -0.6, 1.2];
    const at = { slot: [], level, noise: [0, 1] };
    const [predicted, shape] = [[6, 2, 3, 3] as const, [3, 2, 3, 3] as const];
    const eps = (noise: number, element: number) => Math.sin(5 * noise + element) * 1.7;
    const operands = { prediction: randomValues(108, 1), xt: randomValues(54, 2) };
    const prediction = (values: ArrayLike<number>) => ({ shape: predicted, values });
    const xt = (values: ArrayLike<number>) => ({ shape, values });
    for (const residual of ['eps', 'x0'] as const) {
      const made = referenceErrorsGradients(
        distance,
        prediction(operands.prediction),
        xt(operands.xt),
        levels,
        at,
        eps,
        [1, -0.5],
        residual,
      );
      const worst = worstDerivative(
        (x) => referenceErrors(distance, prediction(x.prediction), xt(x.xt), levels, at, eps, residual),
        operands,
        [1, -0.5],
        { prediction: made.prediction, xt: made.xt },
      );
      expect(worst).toBeLessThan(1e-5);
    }
  });

  it('layer norm, scale and shift', () => {
    const [c, n, h, w] = [5, 3, 2, 3] as const;
    const options = { x: [c, n, h, w] as const, eps: 1e-5 };
    const operands = {
      x: randomValues(90, 1),
      gamma: randomValues(5, 2),
      beta: randomValues(5, 3),
      embedding: randomValues(30, 4),
    };
    const dy = randomValues(90, 5);
    const made = referenceLayerNormGradients(options, operands, dy);
    const worst = worstDerivative(
      (at) =>
        referenceLayerNorm(options, at.x, at.gamma, at.beta).map((v, k) => {
          const i = Math.floor(k / (c * h * w));
          const j = Math.floor(k / (h * w)) % c;
          return v * (1 + at.embedding[2 * c * i + j]!) + at.embedding[2 * c * i + c + j]!;
        }),
      operands,
      dy,
      { x: made.x, gamma: made.gamma, beta: made.beta, embedding: made.embedding },
    );
    expect(worst).toBeLessThan(1e-7);
  });
});
