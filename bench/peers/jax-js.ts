// jax-js on WebGPU as a peer. Each case is one function under `jit`, in this library's order of axes: [n, c, h, w].

import type { Case } from './cases.ts';
import { importFrom, versionOf } from './library.ts';
import { provideWebgpu } from './park-polling.ts';
import type { Inputs, OpenCase } from './protocol.ts';
import { serve } from './serve.ts';

/** An array is freed when it has been used as often as `ref` was read, and once more. */
interface Tensor {
  readonly ref: Tensor;
  readonly shape: number[];
  reshape(shape: readonly number[]): Tensor;
  mul(other: Tensor): Tensor;
  add(other: Tensor): Tensor;
  data(): Promise<Float32Array>;
  dispose(): void;
}

type Run = (...inputs: Tensor[]) => Tensor;

interface Jax {
  init(device: 'webgpu'): Promise<string[]>;
  defaultDevice(device: 'webgpu'): void;
  jit(run: Run): Run;
  blockUntilReady(arrays: readonly Tensor[]): Promise<unknown>;
  vjp(run: Run, inputs: readonly Tensor[]): [Tensor, (dy: Tensor) => Tensor[]];
  readonly numpy: {
    array(values: Float32Array, options: { shape: readonly number[] }): Tensor;
    zeros(shape: readonly number[]): Tensor;
    matmul(a: Tensor, b: Tensor): Tensor;
  };
  readonly lax: {
    convGeneralDilated(x: Tensor, weight: Tensor, strides: number[], padding: number[][]): Tensor;
  };
  readonly nn: {
    standardize(x: Tensor, axis: number, options: { epsilon: number }): Tensor;
    silu(x: Tensor): Tensor;
    dotProductAttention(q: Tensor, k: Tensor, v: Tensor): Tensor;
  };
}

const folder = process.argv[2]!;

/** Adds the helpers of iterators to Node 20; jax-js needs Node 22 for its attention. */
function provideIteratorHelpers(): void {
  const iterator = Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]())) as Record<
    string,
    unknown
  >;
  const helpers: Record<string, (this: Iterable<unknown>, ...values: never[]) => unknown> = {
    toArray() {
      return [...this];
    },
    *map(call: (value: unknown, i: number) => unknown) {
      let i = 0;
      for (const value of this) yield call(value, i++);
    },
    *filter(call: (value: unknown, i: number) => unknown) {
      let i = 0;
      for (const value of this) if (call(value, i++)) yield value;
    },
    some(call: (value: unknown) => unknown) {
      for (const value of this) if (call(value)) return true;
      return false;
    },
    every(call: (value: unknown) => unknown) {
      for (const value of this) if (!call(value)) return false;
      return true;
    },
    reduce(call: (sum: unknown, value: unknown) => unknown, ...start: unknown[]) {
      return [...this].reduce(call as never, ...(start as [never]));
    },
  };
  for (const [name, helper] of Object.entries(helpers)) iterator[name] ??= helper;
}

/** Returns a case as a function of its inputs, in the order in which the case lists them. @throws Error if there is none. */
function translate({ vjp, numpy, lax, nn }: Jax, work: Case): Run {
  const conv: Run = (x, weight) =>
    lax.convGeneralDilated(
      x!,
      weight!,
      [1, 1],
      [
        [1, 1],
        [1, 1],
      ],
    );
  switch (work.op) {
    case 'gemm':
      return (a, b) => numpy.matmul(a!, b!);
    case 'conv':
      return conv;
    case 'conv-dx':
      return (dy, weight) => vjp((x) => conv(x!, weight!), [numpy.zeros(work.result)])[1](dy!)[0]!;
    case 'conv-dw':
      return (x, dy) => vjp((weight) => conv(x!, weight!), [numpy.zeros(work.result)])[1](dy!)[0]!;
    case 'group-norm-silu': {
      const [n, c] = work.result as [number, number];
      return (x, gamma, beta) => {
        const grouped = x!.reshape([n, work.groups, -1]);
        const normal = nn.standardize(grouped, -1, { epsilon: work.eps }).reshape(work.result);
        return nn.silu(normal.mul(gamma!.reshape([1, c, 1, 1])).add(beta!.reshape([1, c, 1, 1])));
      };
    }
    case 'attention':
      return (q, k, v) => nn.dotProductAttention(q!, k!, v!);
    case 'unet':
      throw new Error('the network would have to be written again for this library');
  }
}

await serve(async () => {
  provideIteratorHelpers();
  await provideWebgpu();
  const jax = await importFrom<Jax>(folder, '@jax-js/jax');
  if (!(await jax.init('webgpu')).includes('webgpu')) throw new Error('jax-js found no WebGPU device');
  jax.defaultDevice('webgpu');
  return {
    description: `@jax-js/jax ${versionOf(folder, '@jax-js/jax')}, WebGPU`,
    async open(work: Case, inputs: Inputs): Promise<OpenCase> {
      const run = jax.jit(translate(jax, work));
      const names = Object.keys(inputs);
      const upload = (name: string): Tensor => jax.numpy.array(inputs[name]!, { shape: work.inputs[name]! });
      const held = new Map(names.map((name) => [name, upload(name)]));
      const call = (): Promise<Float32Array> =>
        run(
          ...names.map((name) => (work.uploads.includes(name) ? upload(name) : held.get(name)!.ref)),
        ).data();
      return {
        result: call,
        async resident(runs) {
          const results = Array.from({ length: runs }, () =>
            run(...names.map((name) => held.get(name)!.ref)),
          );
          await jax.blockUntilReady(results);
          for (const y of results) y.dispose();
        },
        async call() {
          await call();
        },
        close() {
          for (const array of held.values()) array.dispose();
        },
      };
    },
  };
});
