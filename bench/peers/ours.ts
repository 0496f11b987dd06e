// This library as a peer. Each case is a plan, as in an application: weights are packed when it is created.

import { differentiate } from '../../src/graph/core/gradient.ts';
import { apply, type Graph, input, newGraph, output } from '../../src/graph/core/graph.ts';
import { plan } from '../../src/graph/core/plan.ts';
import { weightStore } from '../../src/graph/core/weight-store.ts';
import { tracePrediction } from '../../src/graph/evaluation/evaluation.ts';
import { loadModel, withTiles } from '../../src/graph/models/open-model.ts';
import { modelFiles } from '../../src/graph/node/model-source.ts';
import { userCache } from '../../src/graph/node/user-cache.ts';
import { table } from '../../src/graph/ops/value.ts';
import { openDevice } from '../../src/kernels/device/device.ts';
import { idle, readBack, submit } from '../../src/kernels/device/runtime.ts';
import { fromChannelMajor, type Shape, toChannelMajor } from '../../src/kernels/device/tensor.ts';
import type { Case } from './cases.ts';
import { permuted } from './permute.ts';
import type { Inputs, OpenCase } from './protocol.ts';
import { serve } from './serve.ts';

interface Traced {
  readonly graph: Graph;
  /** The values of the graph's inputs, as the device stores them. */
  readonly values: Readonly<Record<string, Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>>>;
  /** Converts the output to the order of the case. */
  readonly ordered: (stored: Float32Array) => Float32Array;
  /** Closes the file of weights, once they are on the device. */
  readonly close?: () => Promise<void>;
}

const shapeOf = ([n, c, h, w]: readonly number[]): Shape => [c!, n!, h!, w!];

function product({ inputs: shapes, result }: Case, { a, b }: Inputs): Traced {
  const graph = newGraph();
  const [rows, columns] = result as [number, number];
  const [depth] = shapes.b as [number, number];
  const x = input(graph, 'b', [depth, 1, 1, columns]);
  output(graph, 'y', apply(graph, 'linear', { outChannels: rows }, { x }, { weight: table('a', a!) }));
  return { graph, values: { b: b! }, ordered: (stored) => stored };
}

const SAME_SIZE = { kernel: [3, 3], stride: 1, padding: [1, 1, 1, 1] } as const;

function convolution(work: Case, { x: given, dy: seed, weight }: Inputs): Traced {
  const graph = newGraph();
  const shape = shapeOf(work.op === 'conv-dx' ? work.result : work.inputs.x!);
  const outChannels = (work.inputs.weight ?? work.result)[0]!;
  const x = input(graph, 'x', shape);
  // Without a weight the case asks for its gradient, which does not depend on its values.
  const constant = table('weight', weight ?? new Float32Array(outChannels * shape[0] * 9));
  const y = apply(graph, 'conv2d', { outChannels, ...SAME_SIZE }, { x }, { weight: constant });
  if (work.op === 'conv') output(graph, 'y', y);
  else {
    const dy = input(graph, 'dy', y.shape);
    const { values, constants } = differentiate(graph, {
      seeds: [{ of: y, gradient: dy }],
      ...(work.op === 'conv-dx' ? { values: [x] } : { constants: () => true }),
    });
    graph.nodes.shift(); // the convolution itself, which neither gradient needs
    output(graph, 'y', work.op === 'conv-dx' ? values.get(x.id)! : constants.get('weight')!);
  }
  return {
    graph,
    values: {
      ...(given ? { x: toChannelMajor(given, shape) } : {}),
      ...(seed ? { dy: toChannelMajor(seed, [outChannels, ...shape.slice(1)] as unknown as Shape) } : {}),
    },
    ordered: (stored) => (work.op === 'conv-dw' ? stored : fromChannelMajor(stored, shapeOf(work.result))),
  };
}

function groupNormSilu(work: Case & { op: 'group-norm-silu' }, { x: given, gamma, beta }: Inputs): Traced {
  const graph = newGraph();
  const shape = shapeOf(work.result);
  const x = input(graph, 'x', shape);
  const { groups, eps } = work;
  const constants = { gamma: table('gamma', gamma!), beta: table('beta', beta!) };
  output(graph, 'y', apply(graph, 'groupNorm', { groups, eps, activation: 'silu' }, { x }, constants));
  return {
    graph,
    values: { x: toChannelMajor(given!, shape) },
    ordered: (stored) => fromChannelMajor(stored, shape),
  };
}

function attention({ result }: Case, inputs: Inputs): Traced {
  const [n, tokens, heads, headDim] = result as [number, number, number, number];
  const channels = heads * headDim;
  const graph = newGraph();
  const shape: Shape = [channels, n, 1, tokens];
  const [q, k, v] = ['q', 'k', 'v'].map((name) => input(graph, name, shape));
  const scale = 1 / Math.sqrt(headDim);
  output(graph, 'y', apply(graph, 'attention', { heads, scale }, { q: q!, k: k!, v: v! }));
  // On the device, activations are [channels, n, tokens].
  const stored = Object.entries(inputs).map(
    ([name, values]) => [name, permuted(values, [n, tokens, channels], [2, 0, 1])] as const,
  );
  const ordered = (values: Float32Array) => permuted(values, [channels, n, tokens], [1, 2, 0]);
  return { graph, values: Object.fromEntries(stored), ordered };
}

async function network(work: Case & { op: 'unet' }, { x, t, label }: Inputs): Promise<Traced> {
  const shape = shapeOf(work.result);
  const timesteps = [...new Set(t)].sort((a, b) => a - b);
  const levels = () => timesteps.map((step) => ({ t: step, weight: 1 }));
  const loaded = await loadModel(await modelFiles(work.model), { levels, batchSize: shape[1] });
  const { graph } = tracePrediction(loaded.network, shape[1]);
  return {
    graph,
    close: loaded.close,
    values: {
      xt: toChannelMajor(x!, shape),
      level: Uint32Array.from(t!, (step) => timesteps.indexOf(step)),
      label: Uint32Array.from(label!),
    },
    ordered: (stored) => fromChannelMajor(stored, shape),
  };
}

function trace(work: Case, inputs: Inputs): Traced | Promise<Traced> {
  if (work.op === 'gemm') return product(work, inputs);
  if (work.op === 'group-norm-silu') return groupNormSilu(work, inputs);
  if (work.op === 'attention') return attention(work, inputs);
  if (work.op === 'unet') return network(work, inputs);
  return convolution(work, inputs);
}

await serve(async () => {
  const device = await withTiles(await openDevice(), { cache: userCache() });
  const { description, family } = device.capabilities;
  return {
    description: `${description}, ${family} family`,
    async open(work: Case, inputs: Inputs): Promise<OpenCase> {
      const weights = weightStore(device);
      const { graph, values, ordered, close } = await trace(work, inputs);
      const made = await plan(device, graph, { weights, weightDtype: 'f32' });
      await close?.();
      const uploads = Object.entries(values).map(([name, data]) => ({ data, to: made.inputs.get(name)! }));
      const upload = (): void => {
        for (const { data, to } of uploads) device.gpu.queue.writeBuffer(to.buffer, to.offset, data);
      };
      const y = [...made.outputs.values()][0]!;
      const call = async (): Promise<Float32Array> => {
        upload();
        submit(device, (pass) => made.encode(pass));
        return new Float32Array(await readBack(device, y));
      };
      return {
        result: async () => ordered(await call()),
        async resident(runs) {
          submit(device, (pass) => {
            for (let i = 0; i < runs; i++) made.encode(pass);
          });
          await idle(device);
        },
        async call() {
          await call();
        },
        close() {
          made.destroy();
          weights.destroy();
        },
      };
    },
  };
});
