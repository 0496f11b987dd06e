// Tests --prediction and --vae: they reach the model, and what was measured is reported.

import { expect, test } from 'vitest';
import { cli } from './captured-cli.ts';
import { fakeFolder } from './fake-folder.ts';
import { goodImages, temporaryFolder } from './image-files.ts';

test.each(['classify', 'match', 'purify', 'calibrate', 'attack', 'evaluate', 'info'])(
  '%s --help lists them',
  async (command) => {
    const { out } = await cli([command, '--help']);
    expect(out).toContain('--prediction <name>');
    expect(out).toContain('--vae <file|dir>');
  },
);

test('they reach the model', async () => {
  const folder = temporaryFolder();
  goodImages(folder, 1);
  const seen: object[] = [];
  const open = fakeFolder({ opened: (_, { prediction, vae }) => seen.push({ prediction, vae }) });
  expect((await cli([folder, '-q', '--prediction', 'v', '--vae', 'vae.safetensors'], open)).status).toBe(0);
  expect((await cli([folder, '-q'], open)).status).toBe(0);
  expect(seen).toEqual([
    { prediction: 'v', vae: 'vae.safetensors' },
    { prediction: undefined, vae: undefined },
  ]);
});

test('another prediction is refused', async () => {
  const { status, err } = await cli(['x', '--prediction', 'flow']);
  expect(status).toBe(2);
  expect(err).toContain('--prediction: expected epsilon or v, got "flow"');
});

test('a measured prediction is reported', async () => {
  const folder = temporaryFolder();
  goodImages(folder, 1);
  const open = fakeFolder({
    opened: (_, { onPrediction }) => onPrediction?.({ prediction: 'v', epsilonError: 1.5, vError: 0.25 }),
  });
  const { err } = await cli([folder], open);
  expect(err).toContain('the network predicts v: measured, with an error of 1.5 as epsilon and 0.25 as v');
});
