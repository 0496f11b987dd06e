// Tests --lora and --embedding: they reach the model, and --resume does not mix runs with different LoRAs.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { OpenModelOptions } from '../../src/graph/models/open-model.ts';
import { cli } from './captured-cli.ts';
import { fakeFolder } from './fake-folder.ts';
import { goodImages, temporaryFolder } from './image-files.ts';

test.each(['classify', 'match', 'purify', 'calibrate', 'attack', 'evaluate', 'info'])(
  '%s --help lists them',
  async (command) => {
    const { out } = await cli([command, '--help']);
    expect(out).toContain('--lora <file[:weight]>');
    expect(out).toContain('--embedding <file[:token]>');
  },
);

test('it reaches the model; a colon that no number follows is part of the name', async () => {
  const folder = temporaryFolder();
  goodImages(folder, 1);
  const seen: OpenModelOptions['loras'][] = [];
  const open = fakeFolder({ opened: (_, { loras }) => seen.push(loras) });
  const words = ['a.safetensors', 'b.pt:0.8', 'C:\\x\\c.safetensors', 'd:e.safetensors:-.5', 'f:2e3', ':1'];
  const argv = [folder, '-q', ...words.flatMap((word) => ['--lora', word])];
  expect((await cli(argv, open)).status).toBe(0);
  expect((await cli([folder, '-q'], open)).status).toBe(0);
  expect(seen).toEqual([
    [
      { file: 'a.safetensors', weight: 1 },
      { file: 'b.pt', weight: 0.8 },
      { file: 'C:\\x\\c.safetensors', weight: 1 },
      { file: 'd:e.safetensors', weight: -0.5 },
      { file: 'f:2e3', weight: 1 },
      { file: ':1', weight: 1 },
    ],
    undefined,
  ]);
});

test('--embedding reaches the model; what looks like a path is no word', async () => {
  const folder = temporaryFolder();
  goodImages(folder, 1);
  const seen: OpenModelOptions['embeddings'][] = [];
  const open = fakeFolder({ opened: (_, { embeddings }) => seen.push(embeddings) });
  const words = ['a.pt', 'b.bin:<cat>', 'C:\\x\\c.safetensors', 'C:d.pt', '/e:f/g.pt:two words'];
  const argv = [folder, '-q', ...words.flatMap((word) => ['--embedding', word])];
  expect((await cli(argv, open)).status).toBe(0);
  expect(seen).toEqual([
    [
      { file: 'a.pt' },
      { file: 'b.bin', token: '<cat>' },
      { file: 'C:\\x\\c.safetensors' },
      { file: 'C:d.pt' },
      { file: '/e:f/g.pt', token: 'two words' },
    ],
  ]);
});

test('--resume does not mix runs with different LoRAs', async () => {
  const folder = temporaryFolder();
  goodImages(join(folder, 'in'), 2);
  const output = join(folder, 'out.jsonl');
  const fake = fakeFolder();
  const open = async (path: string, options: OpenModelOptions) => {
    const [lora] = options.loras ?? [];
    const overlays = lora && { loras: `${lora.file} 01234567 times ${lora.weight}` };
    return Object.assign(await fake(path, options), { overlays });
  };
  const words = [join(folder, 'in'), '-q', '-o', output];
  expect((await cli([...words, '--lora', 'a.safetensors:0.8'], open)).status).toBe(0);
  const record = JSON.parse(readFileSync(`${output}.run.json`, 'utf8'));
  expect(record.settings.loras).toBe('a.safetensors 01234567 times 0.8');
  expect((await cli([...words, '--resume', '--lora', 'a.safetensors:0.8'], open)).status).toBe(0);
  for (const other of [['--lora', 'a.safetensors:0.7'], []]) {
    const { status, err } = await cli([...words, '--resume', ...other], open);
    expect(status).toBe(2);
    expect(err).toContain('loras was a.safetensors 01234567 times 0.8, now ');
  }
});
