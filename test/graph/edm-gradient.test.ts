// Tests the gradients of a whole EDM network (SongUNet) with respect to every parameter, against torch in double
// precision.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { differentiate } from '../../src/graph/core/gradient.ts';
import { input, output } from '../../src/graph/core/graph.ts';
import { traceEach } from '../../src/graph/evaluation/evaluation.ts';
import { loadModel } from '../../src/graph/models/open-model.ts';
import { fileAt, folderFiles } from '../../src/graph/node/folder-files.ts';
import { rdcLevels } from '../../src/graph/sigmas.ts';
import { noiseKeys } from '../../src/kernels/diffusion/philox.ts';
import { testDevice } from '../kernels/harness.ts';
import { edmGolden, imageOf, writeEdmFolder, writeNoise } from './edm-folder.ts';
import { runGraph } from './run-graph.ts';

const measured = join(import.meta.dirname, '..', 'golden', 'gradients', 'parameters.json');

it("SongUNet: the norm of every parameter's gradient equals torch's, to a relative 1e-3", async () => {
  const root = await mkdtemp(join(tmpdir(), 'edm-gradient-'));
  const golden = edmGolden('song');
  const folder = await writeEdmFolder(join(root, 'song'), golden);
  const noiseFile = await writeNoise(join(root, 'noise.safetensors'));
  const { network, evaluation, close } = await loadModel(folderFiles(folder), {
    levels: () => rdcLevels(),
    noiseFile: fileAt(noiseFile),
    slots: 1,
  });
  const count = golden.gradients.length;
  const { graph, error } = traceEach(network, evaluation, count);
  const dy = input(graph, 'dy', error.shape);
  const { constants } = differentiate(graph, {
    seeds: [{ of: error, gradient: dy }],
    constants: (name) => name.startsWith('model.'),
  });
  for (const [name, value] of constants) output(graph, name, value);
  const level = Uint32Array.from(golden.gradients, ({ sigma }) => sigma);
  const outputs = await runGraph(await testDevice(), graph, {
    slots: imageOf(golden),
    slot: new Uint32Array(count),
    level,
    noise: noiseKeys(level, () => 0n),
    label: Uint32Array.from(golden.gradients, ({ label }) => label),
    dy: new Float32Array(count).fill(1),
  });
  await close();
  await rm(root, { recursive: true });

  const expected = JSON.parse(await readFile(measured, 'utf8'))['edm-song'] as Record<
    string,
    [number, number]
  >;
  // The rows of q, k and v have another order here, which is part of the name and does not change the norm.
  const norms = new Map(
    [...constants.keys()].map((name) => [name.split(' ')[0]!, Math.hypot(...outputs[name]!)]),
  );
  expect([...norms.keys()].sort()).toEqual(Object.keys(expected).sort());
  const least = 1e-5 * Math.max(...Object.values(expected).map(([norm]) => norm));
  for (const [name, [norm, product]] of Object.entries(expected)) {
    expect(Math.abs(norms.get(name)! - norm) / Math.max(norm, least), name).toBeLessThan(1e-3);
    const gradient = outputs[name];
    if (!gradient) continue;
    const actual = gradient.reduce((sum, value, i) => sum + value * Math.cos(i + 1), 0);
    expect(Math.abs(actual - product) / Math.max(norm, least), name).toBeLessThan(1e-3);
  }
});
