// onnxruntime-node as a peer, on the CPU or on its own WebGPU.
//
// Its Node binding keeps no operands on a GPU between runs. Resident runs are therefore a model that applies the
// operator several times, each time to the result before: the upload and the download happen once per chain. If a run is
// longer than a sample there is no chain, and the transfers are a small part of the run.
//
// On WebGPU with lavapipe 25.0.7, the operator MultiHeadAttention of 1.30.0 has a relative error of 3.5e-2.

import type { Case, Network } from './cases.ts';
import { relativeError } from './data.ts';
import { exportUnet } from './export-unet.ts';
import { importFrom, versionOf } from './library.ts';
import { type OnnxNode, type OnnxTensor, onnxModel } from './onnx-model.ts';
import { HEADS_FIRST, inverse, permuted } from './permute.ts';
import type { Inputs, OpenCase } from './protocol.ts';
import { serve } from './serve.ts';

interface Tensor {
  readonly data: Float32Array;
}

interface Session {
  run(feeds: Readonly<Record<string, Tensor>>): Promise<Readonly<Record<string, Tensor>>>;
  release(): Promise<void>;
}

interface Onnxruntime {
  readonly Tensor: new (
    type: string,
    values: Float32Array | BigInt64Array,
    shape: readonly number[],
  ) => Tensor;
  readonly InferenceSession: {
    create(model: Uint8Array | string, options: object): Promise<Session>;
  };
}

const [, , folder, provider, python] = process.argv as [string, string, string, 'cpu' | 'webgpu', string];

/** The longest chain of a model. */
const MOST_RUNS = 8;

/** How an operator computes `out` from `in`, and the constants that it needs in addition to the case's weights. */
interface Operator {
  /** The input that the next operator of a chain takes from the result. */
  readonly chained: string;
  readonly nodes: (from: string, to: string) => OnnxNode[];
  readonly constants?: readonly OnnxTensor[];
  /** The order of axes and the shape in which the model takes images, if they are not those of the case. */
  readonly axes?: readonly number[];
  readonly shape?: readonly number[];
  readonly note?: string;
}

/** Returns the operators that compute a case. @throws Error if ONNX has none. */
function operatorOf(work: Case): Operator {
  const padded = { kernel_shape: [3, 3], strides: [1, 1], pads: [1, 1, 1, 1] };
  switch (work.op) {
    case 'gemm':
      return { chained: 'b', nodes: (from, to) => [{ op: 'MatMul', inputs: ['a', from], outputs: [to] }] };
    case 'conv':
      return {
        chained: 'x',
        nodes: (from, to) => [{ op: 'Conv', inputs: [from, 'weight'], outputs: [to], attributes: padded }],
      };
    case 'conv-dx':
      return {
        chained: 'dy',
        nodes: (from, to) => [
          { op: 'ConvTranspose', inputs: [from, 'weight'], outputs: [to], attributes: padded },
        ],
      };
    case 'conv-dw':
      throw new Error('ONNX has no operator for the gradient of a weight');
    case 'group-norm-silu': {
      const [n, c] = work.result as [number, number];
      const { groups, eps } = work;
      const shape = (name: string, sizes: readonly number[]): OnnxTensor => ({
        name,
        shape: [sizes.length],
        values: BigInt64Array.from(sizes, BigInt),
      });
      const ones = (name: string, value: number): OnnxTensor => ({
        name,
        shape: [groups],
        values: new Float32Array(groups).fill(value),
      });
      return {
        chained: 'x',
        constants: [
          shape('grouped', [n, groups, -1]),
          shape('images', work.result),
          shape('perChannel', [1, c, 1, 1]),
          ones('ones', 1),
          ones('zeros', 0),
        ],
        // PyTorch exports a group norm in this way.
        nodes: (from, to) => [
          { op: 'Reshape', inputs: [from, 'grouped'], outputs: [`${to}.groups`] },
          {
            op: 'InstanceNormalization',
            inputs: [`${to}.groups`, 'ones', 'zeros'],
            outputs: [`${to}.normal`],
            attributes: { epsilon: { float: eps } },
          },
          { op: 'Reshape', inputs: [`${to}.normal`, 'images'], outputs: [`${to}.image`] },
          { op: 'Reshape', inputs: ['gamma', 'perChannel'], outputs: [`${to}.gamma`] },
          { op: 'Reshape', inputs: ['beta', 'perChannel'], outputs: [`${to}.beta`] },
          { op: 'Mul', inputs: [`${to}.image`, `${to}.gamma`], outputs: [`${to}.scaled`] },
          { op: 'Add', inputs: [`${to}.scaled`, `${to}.beta`], outputs: [`${to}.affine`] },
          { op: 'Sigmoid', inputs: [`${to}.affine`], outputs: [`${to}.sigmoid`] },
          { op: 'Mul', inputs: [`${to}.affine`, `${to}.sigmoid`], outputs: [to] },
        ],
      };
    }
    case 'attention': {
      const [n, tokens, heads, headDim] = work.result as [number, number, number, number];
      return {
        chained: 'q',
        shape: [n, tokens, heads * headDim],
        note: 'MultiHeadAttention',
        nodes: (from, to) => [
          {
            op: 'MultiHeadAttention',
            domain: 'com.microsoft',
            inputs: [from, 'k', 'v'],
            outputs: [to],
            attributes: { num_heads: heads },
          },
        ],
      };
    }
    case 'unet':
      throw new Error('a network is exported by PyTorch');
  }
}

/** Attention without onnxruntime's own operator. */
function composedAttention({ result }: Case): Operator {
  const [n, tokens, heads, headDim] = result as [number, number, number, number];
  return {
    chained: 'q',
    axes: HEADS_FIRST,
    shape: [n, heads, tokens, headDim],
    note: 'MatMul and Softmax, because MultiHeadAttention has a wrong result here',
    constants: [{ name: 'scale', shape: [1], values: Float32Array.of(1 / Math.sqrt(headDim)) }],
    nodes: (from, to) => [
      { op: 'Mul', inputs: [from, 'scale'], outputs: [`${to}.q`] },
      { op: 'Transpose', inputs: ['k'], outputs: [`${to}.k`], attributes: { perm: [0, 1, 3, 2] } },
      { op: 'MatMul', inputs: [`${to}.q`, `${to}.k`], outputs: [`${to}.scores`] },
      { op: 'Softmax', inputs: [`${to}.scores`], outputs: [`${to}.p`], attributes: { axis: 3 } },
      { op: 'MatMul', inputs: [`${to}.p`, 'v'], outputs: [to] },
    ],
  };
}

/** Returns a model that applies an operator `runs` times. */
function chain(work: Case, operator: Operator, inputs: Inputs, runs: number): Uint8Array {
  const { chained, nodes, constants = [], shape } = operator;
  const held = Object.keys(inputs).filter((name) => !work.uploads.includes(name));
  return onnxModel({
    nodes: Array.from({ length: runs }, (_, i) =>
      nodes(i === 0 ? chained : `y${i}`, i === runs - 1 ? 'y' : `y${i + 1}`),
    ).flat(),
    inputs: work.uploads.map((name) => ({ name, shape: shape ?? work.inputs[name]! })),
    outputs: [{ name: 'y', shape: shape ?? work.result }],
    constants: [
      ...held.map((name) => ({ name, shape: work.inputs[name]!, values: inputs[name]! })),
      ...constants,
    ],
  });
}

await serve(async () => {
  const module = await importFrom<Onnxruntime & { default?: Onnxruntime }>(folder, 'onnxruntime-node');
  const { InferenceSession, Tensor } = module.default ?? module;
  const open = (model: Uint8Array | string): Promise<Session> =>
    InferenceSession.create(model, { executionProviders: [provider], logSeverityLevel: 3 });
  const run = async (session: Session, feeds: Readonly<Record<string, Tensor>>): Promise<Float32Array> =>
    Object.values(await session.run(feeds))[0]!.data;

  async function openNetwork(work: Network, inputs: Inputs): Promise<OpenCase> {
    const session = await open(exportUnet({ folder, python, work }));
    const feeds = Object.fromEntries(
      Object.entries(inputs).map(([name, values]) => [
        name,
        name === 'x'
          ? new Tensor('float32', values, work.inputs[name]!)
          : new Tensor('int64', BigInt64Array.from(values, BigInt), work.inputs[name]!),
      ]),
    );
    const once = () => run(session, feeds);
    return {
      result: once,
      // The images are small: their upload takes less than a thousandth of a run.
      async resident(runs) {
        for (let i = 0; i < runs; i++) await once();
      },
      async call() {
        await once();
      },
      close: () => session.release(),
    };
  }

  async function openOperator(work: Case, operator: Operator, inputs: Inputs): Promise<OpenCase> {
    const { axes, shape, note } = operator;
    const feeds = Object.fromEntries(
      work.uploads.map((name) => {
        const values = axes ? permuted(inputs[name]!, work.inputs[name]!, axes) : inputs[name]!;
        return [name, new Tensor('float32', values, shape ?? work.inputs[name]!)];
      }),
    );
    const single = await open(chain(work, operator, inputs, 1));
    let several: { readonly runs: number; readonly session: Session } | undefined;
    return {
      mostRuns: MOST_RUNS,
      ...(note ? { note } : {}),
      async result() {
        const y = await run(single, feeds);
        return axes ? permuted(y, shape!, inverse(axes)) : y;
      },
      async resident(runs) {
        if (runs > 1 && several?.runs !== runs) {
          await several?.session.release();
          several = { runs, session: await open(chain(work, operator, inputs, runs)) };
        }
        await run(runs > 1 ? several!.session : single, feeds);
      },
      async call() {
        await run(single, feeds);
      },
      async close() {
        await single.release();
        await several?.session.release();
      },
    };
  }

  /** Opens attention by its own operator if its result agrees with that of simpler ones (see the note above). */
  async function openAttention(work: Case, inputs: Inputs): Promise<OpenCase> {
    const [own, composed] = [
      await openOperator(work, operatorOf(work), inputs),
      await openOperator(work, composedAttention(work), inputs),
    ];
    const isRight = relativeError(await own.result(), await composed.result()) < 1e-3;
    await (isRight ? composed : own).close();
    return isRight ? own : composed;
  }

  return {
    description: `onnxruntime-node ${versionOf(folder, 'onnxruntime-node')}, ${provider === 'cpu' ? 'CPU' : 'WebGPU'}`,
    async open(work: Case, inputs: Inputs): Promise<OpenCase> {
      if (work.op === 'unet') return openNetwork(work, inputs);
      if (work.op === 'attention') return openAttention(work, inputs);
      return openOperator(work, operatorOf(work), inputs);
    },
  };
});
