// Tests a device with remembered tiles and a search, on the plan of a small graph.

import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { Cache } from '../../src/graph/cache.ts';
import { apply, type Graph, input, newGraph, output } from '../../src/graph/core/graph.ts';
import { plan } from '../../src/graph/core/plan.ts';
import { weightStore } from '../../src/graph/core/weight-store.ts';
import { openFiles } from '../../src/graph/models/open-model.ts';
import { modelFiles } from '../../src/graph/node/model-source.ts';
import type { Device } from '../../src/kernels/device/device.ts';
import { readBack, submit } from '../../src/kernels/device/runtime.ts';
import { classKey } from '../../src/kernels/device/shape-class.ts';
import { type TuningOptions, tunedDevice } from '../../src/kernels/device/tuned-device.ts';
import { randomValues, testDevice } from '../kernels/harness.ts';

/** Returns a graph of two dense layers of 40 and 24 channels. */
function layers(): Graph {
  const graph = newGraph();
  const weight = (name: string, length: number, seed: number) => ({
    name,
    length,
    values: async () => randomValues(length, seed),
  });
  const x = input(graph, 'x', [40, 2, 6, 6]);
  const h = apply(graph, 'linear', { outChannels: 40 }, { x }, { weight: weight('first', 1600, 1) });
  const y = apply(graph, 'linear', { outChannels: 24 }, { x: h }, { weight: weight('second', 960, 2) });
  output(graph, 'y', y);
  return graph;
}

/** Runs the graph and returns its result, and the class and tile of each kernel that has a choice. */
async function run(device: Device) {
  const weights = weightStore(device);
  const made = await plan(device, layers(), { weights, weightDtype: 'f32' });
  const { buffer, offset } = made.inputs.get('x')!;
  device.gpu.queue.writeBuffer(buffer, offset, randomValues(40 * 72));
  submit(device, (pass) => made.encode(pass));
  const y = new Uint32Array(await readBack(device, made.outputs.get('y')!));
  const tunings = made.launches.map(({ kernel }) => kernel.tuning!);
  made.destroy();
  weights.destroy();
  return { y, tunings };
}

// The tests of kernels run on every family; this one needs a family with tiles, and `tile` is possible everywhere.
const device = testDevice({ family: 'tile' });

/** Returns a cache that notes what it is asked. */
function fakeCache(entries: Readonly<Record<string, unknown>> = {}) {
  const written = new Map<string, string>();
  const options: TuningOptions = {
    remembered: new Map(Object.entries(entries)),
    remember: async (key, tile) => {
      written.set(key, tile);
    },
  };
  return { written, options };
}

describe('a tuned device', () => {
  it('searches, remembers a tile for every class, uses it, and gives the same bytes', async () => {
    const here = await device;
    const usual = await run(here);
    const { written, options } = fakeCache();
    const progress: string[] = [];
    const tuned = tunedDevice(here, {
      ...options,
      tune: true,
      onTune: ({ done, total }) => progress.push(`${done} of ${total}`),
    });
    const first = await run(tuned);
    expect(first.y).toEqual(usual.y);
    expect(written).toEqual(new Map(first.tunings.map(({ shape, tile }) => [classKey(shape), tile])));
    expect(written.size).toBe(2);
    expect(progress).toEqual(['0 of 2', '1 of 2', '2 of 2']);
    written.clear();
    const second = await run(tuned);
    expect(second.tunings.map(({ tile }) => tile)).toEqual(first.tunings.map(({ tile }) => tile));
    expect(written.size).toBe(0);
  });

  it('takes remembered tiles without a search, and searches for the rest', async () => {
    const here = await device;
    const usual = await run(here);
    const [first, second] = usual.tunings;
    const other = first!.tiles().find((tile) => tile !== first!.tile)!;
    const { written, options } = fakeCache({
      [classKey(first!.shape)]: other,
      [classKey(second!.shape)]: { not: 'a tile' },
    });
    const untuned = await run(tunedDevice(here, { ...options, tune: false }));
    expect(untuned.tunings.map(({ tile }) => tile)).toEqual([other, second!.tile]);
    expect(untuned.y).toEqual(usual.y);
    expect(written.size).toBe(0);
    // A device that is not in the table searches without being asked.
    const unknown = { ...here, capabilities: { ...here.capabilities, description: 'a new card' } };
    const tuned = await run(tunedDevice(unknown, options));
    expect(tuned.tunings[0]!.tile).toBe(other);
    expect([...written.keys()]).toEqual([classKey(second!.shape)]);
  });

  it('keeps the default tiles if there is no time', async () => {
    const here = await device;
    const { written, options } = fakeCache();
    const { tunings } = await run(tunedDevice(here, { ...options, tune: true, budgetMs: 0 }));
    expect(tunings.map(({ tile }) => tile)).toEqual((await run(here)).tunings.map(({ tile }) => tile));
    expect(written.size).toBe(2);
  });

  it('does not search where measured tiles are shipped, or if told not to', async () => {
    const here = await device;
    const on = (description: string) => ({
      ...here,
      capabilities: { ...here.capabilities, description },
    });
    const mesa = on('mesa software llvmpipe: Mesa 25.0.7 (LLVM 15.0.6)');
    expect(tunedDevice(mesa).tune).toBeUndefined();
    expect(tunedDevice(mesa, { tune: true }).tune).toBeTypeOf('function');
    expect(tunedDevice(on('a new card')).tune).toBeTypeOf('function');
    expect(tunedDevice(on('a new card'), { tune: false }).tune).toBeUndefined();
  });
});

describe('opening a model', () => {
  it('reads and writes the tiles of its device and driver, and of no other', async () => {
    const scopes: string[] = [];
    const keys: string[] = [];
    const cache: Cache = {
      read: async (scope) => {
        scopes.push(scope);
        return new Map();
      },
      write: async (scope, key) => {
        scopes.push(scope);
        keys.push(key);
      },
    };
    const { description } = (await testDevice()).capabilities;
    const files = await modelFiles(fileURLToPath(new URL('../golden/pipeline-dit', import.meta.url)));
    const model = await openFiles(files, { cache, tune: true, batchSize: 2 });
    model.close();
    expect(new Set(scopes)).toEqual(new Set([`tiles ${description}`]));
    expect(keys.length).toBeGreaterThan(0);
  });
});
