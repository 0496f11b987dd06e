// Classifies 2,000 images with each shipped model in f32 and in f16 and compares the labels. It takes an hour on two
// cores: `npm run test:all -- precision`. With PRECISION_RESULTS=FOLDER the result of each image is kept in a file of that
// folder, and a run goes on from what is there. A folder belongs to one device and one version of the source.

import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { DATA, readTestSet, streamed } from '../bench/test-set.ts';
import { shippedNames } from '../src/graph/node/model-path.ts';
import { prepareImage } from '../src/pipeline/images/prepare.ts';
import { openClassifier } from '../src/pipeline/node/open-classifier.ts';
import { type Classified, isFailure } from '../src/pipeline/types.ts';
import { testDevice } from './kernels/harness.ts';

const count = Number(process.env.PRECISION_IMAGES ?? 0);
const kept = process.env.PRECISION_RESULTS;
const { f16 } = (await testDevice()).capabilities;

/** Probabilities that differ by less than this are no decision. */
const LEAST_MARGIN = 1e-3;

type Result = Pick<Classified, 'path' | 'label' | 'margin'>;

/** Returns the results that a file has, one JSON value per line; none if there is no file. */
function resultsIn(file: string): Result[] {
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
  return lines.map((line) => JSON.parse(line));
}

/** Returns the label and the margin of each image of Fashion-MNIST's test split. */
async function classified(model: string, precision: 'f32' | 'f16'): Promise<Map<string, Result>> {
  const file = kept && join(kept, `${model}-${precision}.jsonl`);
  const results = new Map((file ? resultsIn(file) : []).map((result) => [result.path, result]));
  const classifier = await openClassifier(model, { precision });
  const [channels, height, width] = classifier.inputShape;
  const left = readTestSet(DATA, count).images.filter(({ path }) => !results.has(path));
  const images = left.map(({ path, pixels }) => {
    if (channels === 1 && height === 28 && width === 28) return { path, pixels };
    const data = Uint8Array.from(pixels, (value) => Math.round((value + 1) * 127.5));
    return {
      path,
      pixels: prepareImage({ width: 28, height: 28, channels: 1, data }, classifier.inputShape),
    };
  });
  for await (const result of classifier.classifyAll(streamed({ images }))) {
    if (isFailure(result)) throw new Error(result.error.message);
    const { path, label, margin } = result;
    results.set(path, { path, label, margin });
    if (file) appendFileSync(file, `${JSON.stringify({ path, label, margin })}\n`);
  }
  await classifier.close();
  return results;
}

/** Why nothing is compared here; undefined if it is. */
const missing =
  count === 0
    ? 'takes an hour: npm run test:all -- precision'
    : !f16
      ? 'this adapter has no f16'
      : existsSync(DATA)
        ? undefined
        : `the test images are not in ${DATA}`;

describe('labels in f16', async () => {
  it.for(await shippedNames())(
    'are those in f32, but for images without a decision: %s',
    { timeout: 7_200_000 },
    async (name, { skip }) => {
      if (missing) return skip(missing);
      if (kept) mkdirSync(kept, { recursive: true });
      const exact = await classified(name, 'f32');
      const half = await classified(name, 'f16');
      expect(exact.size).toBe(count);
      const changed = [...exact].filter(([path, { label }]) => half.get(path)!.label !== label);
      const margins = changed.map(([, { margin }]) => margin);
      console.error(
        `${name}: ${changed.length} of ${count} labels differ in f16; their margins in f32: ${margins.map((m) => m.toExponential(1)).join(', ') || 'none'}`,
      );
      expect(Math.max(0, ...margins)).toBeLessThan(LEAST_MARGIN);
    },
  );
});
