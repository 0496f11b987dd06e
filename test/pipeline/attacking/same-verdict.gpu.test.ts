// Tests that `attack`, `evaluate` and `classify --strategy all` give an image the same label, with the same errors.

import { readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { expect, test } from 'vitest';
import { describeModel, openModel } from '../../../src/graph/node/open-model.ts';
import type { Classified } from '../../../src/pipeline/types.ts';
import { cli, linesOf } from '../captured-cli.ts';
import { temporaryFolder } from '../image-files.ts';

const SAMPLES = join(import.meta.dirname, '../../../weights/fashion-mnist/samples');
const IMAGES = [
  ['0001-pullover.png', 'Pullover'],
  ['0004-shirt.png', 'Shirt'],
  ['0009-sneaker.png', 'Sneaker'],
] as const;
const GRID = ['--timesteps', 'even:6', '--seed', '5'];

const run = async (...argv: string[]) => {
  const { status, out, err } = await cli([...argv, ...GRID], openModel, '', describeModel);
  expect([status, err]).toEqual([0, expect.any(String)]);
  return out;
};

test.each(['fashion-mnist', 'fashion-mnist-multi-head'])('%s', async (name) => {
  const folder = temporaryFolder();
  const model = ['--model', name];
  const [labels, out, table] = ['labels.csv', 'out', 'table.txt'].map((file) => join(folder, file)) as [
    string,
    string,
    string,
  ];
  const rows = (directory: string) =>
    `path,label\n${IMAGES.map(([file, label]) => `${join(directory, file)},${label}\n`).join('')}`;
  writeFileSync(labels, rows(SAMPLES));
  const files = IMAGES.map(([file]) => join(SAMPLES, file));
  const attack = ['--attack', 'pgd', '--steps', '3', '--eps', '8/255'];
  await run('attack', ...files, ...model, ...attack, '--truth', labels, '--out', out);
  writeFileSync(labels, rows(out));
  await run('evaluate', labels, ...model, '--attacks', 'none', '-o', table);
  const lines = linesOf(
    await run('classify', out, ...model, '--strategy', 'all', '--top-k', '10', '--format', 'jsonl', '-q'),
  ) as Classified[];
  const report = JSON.parse(readFileSync(join(out, 'report.json'), 'utf8'));
  const [, ...judged] = linesOf(readFileSync(`${table}.log.jsonl`, 'utf8'));
  const { temperature } = (await describeModel(join(SAMPLES, '../..', name))).model!;
  expect(lines).toHaveLength(IMAGES.length);
  for (const { path, classidx, label, top } of lines) {
    const file = basename(path);
    const attacked = report.images.find((image: { file: string }) => image.file === file);
    const evaluated = judged.find(({ key }) => basename(key) === file);
    expect([attacked.adversarial, evaluated.prediction]).toEqual([label, classidx]);
    // The margin between the true class and the next one, in logits.
    const truth = top.find((one) => one.label === attacked.label)!;
    const rival = Math.min(...top.filter((one) => one !== truth).map(({ error }) => error));
    const margin = (rival - truth.error) / temperature;
    for (const other of [attacked.margin, evaluated.margin])
      expect(Math.abs(other - margin)).toBeLessThan(1e-3 * Math.abs(margin) + 1e-5 / temperature);
  }
});
