// The inputs and the expected result of each case, as files of f32 that all peers read. They are kept in the folder of
// the benchmark, because the slow references take half a minute.

import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Conv2dOptions } from '../../src/kernels/conv2d/conv2d.ts';
import { referenceAttention } from '../../test/reference/attention.ts';
import { referenceConv2d, referenceConv2dBackward } from '../../test/reference/conv2d.ts';
import { referenceAffine, referenceGroupNormAffine } from '../../test/reference/groupnorm.ts';
import { referenceLinear } from '../../test/reference/linear.ts';
import { randomUniform } from '../random.ts';
import type { Case } from './cases.ts';
import { permuted } from './permute.ts';
import type { Inputs } from './protocol.ts';

const lengthOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/**
 * Returns values in [-1, 1). Weights are scaled so that a result has about the variance of the input, because some peers
 * apply a case several times in a row.
 */
function inputsOf(work: Case): Inputs {
  const random = randomUniform(1);
  const values = (name: string, shape: readonly number[]): Float32Array<ArrayBuffer> => {
    if (name === 't') return Float32Array.from({ length: shape[0]! }, (_, i) => 100 + 200 * (i % 5));
    if (name === 'label') return Float32Array.from({ length: shape[0]! }, (_, i) => i % 10);
    const isWeight = name === 'weight' || name === 'a';
    const scale = isWeight ? Math.sqrt(3 / lengthOf(shape.slice(1))) : 1;
    return Float32Array.from({ length: lengthOf(shape) }, () => scale * (2 * random() - 1));
  };
  return Object.fromEntries(Object.entries(work.inputs).map(([name, shape]) => [name, values(name, shape)]));
}

function convolutionOf(work: Case): Conv2dOptions {
  const [n, c, h, w] = (work.inputs.x ?? work.inputs.dy) as [number, number, number, number];
  return {
    x: [c, n, h, w],
    outChannels: c,
    kernel: [3, 3],
    padding: [1, 1, 1, 1],
    bias: false,
    weights: 'f32',
  };
}

/** Returns what the slow reference computes; undefined for a network, whose reference is this library's own result. */
function expectedOf(work: Case, inputs: Inputs): ArrayLike<number> | undefined {
  const { a, b, x, dy, weight, q, k, v, gamma, beta } = inputs;
  switch (work.op) {
    case 'gemm': {
      const [depth, columns] = work.inputs.b as [number, number];
      const options = {
        x: [depth, 1, 1, columns],
        outChannels: work.result[0]!,
        bias: false,
        weights: 'f32',
      } as const;
      return referenceLinear(options, { x: b!, weight: a! });
    }
    case 'conv':
      return referenceConv2d(convolutionOf(work), { x: x!, weight: weight! });
    case 'conv-dx': {
      const unused = new Float32Array(dy!.length);
      return referenceConv2dBackward(convolutionOf(work), { x: unused, weight: weight! }, dy!).x;
    }
    case 'conv-dw': {
      const unused = new Float32Array(lengthOf(work.result));
      return referenceConv2dBackward(convolutionOf(work), { x: x!, weight: unused }, dy!).weight;
    }
    case 'group-norm-silu': {
      const [n, c, h, w] = work.result as [number, number, number, number];
      const { groups, eps } = work;
      const options = { x: [c, n, h, w], groups, eps, scaleShift: false } as const;
      const affine = referenceGroupNormAffine(options, { x: x!, gamma: gamma!, beta: beta! });
      return referenceAffine([c, n, h, w], x!, affine, 'silu');
    }
    case 'attention': {
      const [n, tokens, heads, headDim] = work.result as [number, number, number, number];
      const channels = heads * headDim;
      // The reference's arrays are [n, channels, tokens].
      const [cq, ck, cv] = [q!, k!, v!].map((values) => permuted(values, [n, tokens, channels], [0, 2, 1]));
      const scale = 1 / Math.sqrt(headDim);
      const options = { heads, headDim, n, queries: tokens, keys: tokens, scale };
      const y = referenceAttention(options, { q: cq!, k: ck!, v: cv! });
      return permuted(y, [n, channels, tokens], [0, 2, 1]);
    }
    case 'unet':
      return undefined;
  }
}

export const readArray = (path: string): Float32Array =>
  new Float32Array(new Uint8Array(readFileSync(path)).buffer);

/** Increase it if the inputs change, so that files of earlier versions are not used. */
const VERSION = 1;

export interface CaseData {
  /** The folder of the inputs. */
  readonly folder: string;
  /** Undefined for a network. */
  readonly expected: Float32Array | undefined;
}

/** Returns a case's data. Computes it and writes it into `folder` unless it is there. */
export function dataOf(work: Case, folder: string): CaseData {
  const own = join(folder, `${work.id}-v${VERSION}`);
  const expectedFile = join(own, 'expected.f32');
  if (!existsSync(own)) {
    const inputs = inputsOf(work);
    const expected = expectedOf(work, inputs);
    const part = `${own}-${process.pid}.part`;
    mkdirSync(part, { recursive: true });
    for (const [name, values] of Object.entries(inputs)) writeFileSync(join(part, `${name}.f32`), values);
    if (expected) writeFileSync(join(part, 'expected.f32'), Float32Array.from(expected));
    renameSync(part, own);
  }
  return { folder: own, expected: existsSync(expectedFile) ? readArray(expectedFile) : undefined };
}

/**
 * Returns the largest difference from the expected values, relative to the largest of them; infinity if the lengths
 * differ or a value is NaN or infinity.
 */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let difference = 0;
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    const apart = Math.abs(actual[i]! - expected[i]!);
    if (!Number.isFinite(apart)) return Number.POSITIVE_INFINITY;
    difference = Math.max(difference, apart);
    largest = Math.max(largest, Math.abs(expected[i]!));
  }
  return difference / largest;
}
