// TensorFlow.js on WebGPU as a peer, in its own order of axes: [n, h, w, c], and weights [kh, kw, c, oc].

import type { Case } from './cases.ts';
import { importFrom, versionOf } from './library.ts';
import { provideWebgpu } from './park-polling.ts';
import { HEADS_FIRST, inverse, permuted } from './permute.ts';
import type { Inputs, OpenCase } from './protocol.ts';
import { serve } from './serve.ts';

interface Tensor {
  readonly shape: number[];
  data(): Promise<Float32Array>;
  dispose(): void;
}

interface TensorFlow {
  ready(): Promise<void>;
  setBackend(name: string): Promise<boolean>;
  backend(): { endComputePassEncoder(): void; submitQueue(): void; commandEncoder: unknown; queue: GPUQueue };
  tidy<T>(run: () => T): T;
  tensor(values: Float32Array, shape: readonly number[]): Tensor;
  reshape(x: Tensor, shape: readonly number[]): Tensor;
  add(a: Tensor, b: Tensor | number): Tensor;
  sub(a: Tensor, b: Tensor): Tensor;
  mul(a: Tensor, b: Tensor | number): Tensor;
  rsqrt(x: Tensor): Tensor;
  sigmoid(x: Tensor): Tensor;
  softmax(x: Tensor): Tensor;
  matMul(a: Tensor, b: Tensor, transposeA?: boolean, transposeB?: boolean): Tensor;
  conv2d(x: Tensor, weight: Tensor, stride: number, padding: 'same'): Tensor;
  conv2dTranspose(
    dy: Tensor,
    weight: Tensor,
    shape: readonly number[],
    stride: number,
    padding: 'same',
  ): Tensor;
  moments(x: Tensor, axes: readonly number[], keep: boolean): { mean: Tensor; variance: Tensor };
  engine(): { runKernel(name: string, inputs: object, attributes: object): Tensor };
}

const folder = process.argv[2]!;

/** This library's orders of axes for images and weights, in terms of the orders of a case. */
const CHANNELS_LAST = [0, 2, 3, 1];
const WEIGHT = [2, 3, 1, 0];

type Run = (inputs: Readonly<Record<string, Tensor>>) => Tensor;

interface Translated {
  readonly run: Run;
  /** The permutation of each input and of the result (`y`); none for the others. */
  readonly axes: Readonly<Record<string, readonly number[]>>;
}

/** Returns a case as a function of its inputs. @throws Error if this library cannot do it. */
function translate(tf: TensorFlow, work: Case): Translated {
  const conv = { strides: [1, 1], pad: 'same', dataFormat: 'NHWC', dimRoundingMode: undefined };
  switch (work.op) {
    case 'gemm':
      return { run: ({ a, b }) => tf.matMul(a!, b!), axes: {} };
    case 'conv':
      return {
        run: ({ x, weight }) => tf.conv2d(x!, weight!, 1, 'same'),
        axes: { x: CHANNELS_LAST, weight: WEIGHT, y: CHANNELS_LAST },
      };
    case 'conv-dx':
      return {
        run: ({ dy, weight }) => tf.conv2dTranspose(dy!, weight!, dy!.shape, 1, 'same'),
        axes: { dy: CHANNELS_LAST, weight: WEIGHT, y: CHANNELS_LAST },
      };
    case 'conv-dw': {
      const [oc, c, kh, kw] = work.result;
      const attributes = { ...conv, filterShape: [kh, kw, c, oc] };
      return {
        run: ({ x, dy }) => tf.engine().runKernel('Conv2DBackpropFilter', { x: x!, dy: dy! }, attributes),
        axes: { x: CHANNELS_LAST, dy: CHANNELS_LAST, y: WEIGHT },
      };
    }
    case 'group-norm-silu': {
      const [n, c, h, w] = work.result as [number, number, number, number];
      return {
        run: ({ x, gamma, beta }) => {
          const grouped = tf.reshape(x!, [n, h * w, work.groups, c / work.groups]);
          const { mean, variance } = tf.moments(grouped, [1, 3], true);
          const normal = tf.mul(tf.sub(grouped, mean), tf.rsqrt(tf.add(variance, work.eps)));
          const y = tf.add(tf.mul(tf.reshape(normal, [n, h, w, c]), gamma!), beta!);
          return tf.mul(y, tf.sigmoid(y));
        },
        axes: { x: CHANNELS_LAST, y: CHANNELS_LAST },
      };
    }
    case 'attention': {
      const scale = 1 / Math.sqrt(work.result[3]!);
      return {
        run: ({ q, k, v }) => tf.matMul(tf.softmax(tf.mul(tf.matMul(q!, k!, false, true), scale)), v!),
        axes: { q: HEADS_FIRST, k: HEADS_FIRST, v: HEADS_FIRST, y: HEADS_FIRST },
      };
    }
    case 'unet':
      throw new Error('the network would have to be written again for this library');
  }
}

await serve(async () => {
  await provideWebgpu();
  const tf = await importFrom<TensorFlow>(folder, '@tensorflow/tfjs-core');
  await importFrom(folder, '@tensorflow/tfjs-backend-webgpu');
  await tf.setBackend('webgpu');
  await tf.ready();
  const idle = async (): Promise<void> => {
    const backend = tf.backend();
    backend.endComputePassEncoder();
    if (backend.commandEncoder) backend.submitQueue();
    await backend.queue.onSubmittedWorkDone();
  };
  return {
    description: `@tensorflow/tfjs-backend-webgpu ${versionOf(folder, '@tensorflow/tfjs-backend-webgpu')}`,
    async open(work: Case, inputs: Inputs): Promise<OpenCase> {
      const { run, axes } = translate(tf, work);
      const host = Object.entries(inputs).map(([name, values]) => {
        const shape = work.inputs[name]!;
        const order = axes[name];
        if (!order) return { name, values, shape };
        return { name, values: permuted(values, shape, order), shape: order.map((axis) => shape[axis]!) };
      });
      const held = Object.fromEntries(
        host.map(({ name, values, shape }) => [name, tf.tensor(values, shape)] as const),
      );
      const uploaded = host.filter(({ name }) => work.uploads.includes(name));
      const call = async (): Promise<{ readonly values: Float32Array; readonly shape: number[] }> => {
        const y = tf.tidy(() =>
          run({
            ...held,
            ...Object.fromEntries(
              uploaded.map(({ name, values, shape }) => [name, tf.tensor(values, shape)]),
            ),
          }),
        );
        const values = await y.data();
        y.dispose();
        return { values, shape: y.shape };
      };
      return {
        async result() {
          const { values, shape } = await call();
          return axes.y ? permuted(values, shape, inverse(axes.y)) : values;
        },
        async resident(runs) {
          for (let i = 0; i < runs; i++) tf.tidy(() => run(held)).dispose();
          await idle();
        },
        async call() {
          await call();
        },
        close() {
          for (const tensor of Object.values(held)) tensor.dispose();
        },
      };
    },
  };
});
