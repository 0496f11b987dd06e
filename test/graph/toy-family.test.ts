// Tests that another family of models needs one registration and no change of src. Its network predicts the mean image of
// a class.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { UnsupportedError } from '../../src/errors.ts';
import { apply } from '../../src/graph/core/graph.ts';
import type { Family, ModelConfig, NetworkKind } from '../../src/graph/families/family.ts';
import { checked } from '../../src/graph/files/json.ts';
import { parametersOf } from '../../src/graph/files/parameters.ts';
import { headerBytes } from '../../src/graph/files/tensor-data.ts';
import { readCard } from '../../src/graph/folders/card.ts';
import { FAMILIES } from '../../src/graph/models/families.ts';
import { describeModel, openModel, readModel } from '../../src/graph/node/open-model.ts';
import { openClassifier } from '../../src/pipeline/node/open-classifier.ts';
import { memoryFiles } from './memory-files.ts';

const CHANNELS = 4;

interface ToyConfig extends ModelConfig {
  readonly labels: readonly string[];
}

const expected = (classes: number) => [{ name: 'means', shape: [classes, CHANNELS] }];
const schema = z.object({ labels: z.array(z.string()) });

const network: NetworkKind = {
  stem: 'model',
  numbers: ['labels'],
  check: async (_files, _config, file) => parametersOf(file, expected(3)),
};

const toy: Family<ToyConfig> = {
  batch: 8,
  recognise: ({ className }) => className === 'ToyMeans',
  config: async (files, { name, json }) => ({
    files,
    weights: 'model.safetensors',
    card: await readCard(files, undefined),
    labels: checked(schema, json, files.describe(name)).labels,
  }),
  images: () => ({ inputShape: [CHANNELS, 1, 1] }),
  levels: ({ files }) => ({
    numTrainTimesteps: 0,
    levels: [0.5, 1].map((sigma) => ({ sigma, weight: 1 })),
    residual: 'eps',
    coefficients({ sigma }) {
      if (sigma === undefined) throw new UnsupportedError(`${files.name}: it has sigmas only`);
      return { a: 1, b: sigma, alpha: -1 / sigma, beta: 1 / sigma };
    },
  }),
  candidates: ({ labels }) => ({ conditioning: 'class', labels, whyNoNullClass: 'it has no such mean' }),
  async network({ labels }, { file }) {
    const table = parametersOf(file, expected(labels.length))('means', [labels.length, CHANNELS]);
    return {
      network: {
        image: [CHANNELS, 1, 1],
        predict: (graph, { label: index }) =>
          apply(graph, 'gather', { entries: labels.length, channels: CHANNELS }, { index }, { table }),
      },
    };
  },
  describe: ({ className }) =>
    className === 'ToyMeans' ? [{ part: '.', className: 'ToyMeans', network }] : [],
};

const LABELS = ['dark', 'bright', 'mixed'];
const MEANS = [-1, -1, -1, -1, 1, 1, 1, 1, -1, 1, -1, 1];

/** Returns a model of the family, in memory. */
function toyModel() {
  const data = Float32Array.from(MEANS);
  const header = headerBytes([['means', { dtype: 'F32', shape: [3, CHANNELS], data }]], new Map());
  const weights = new Uint8Array(header.length + data.byteLength);
  weights.set(header);
  weights.set(new Uint8Array(data.buffer), header.length);
  const config = JSON.stringify({ _class_name: 'ToyMeans', labels: LABELS });
  const contents = [
    ['config.json', new TextEncoder().encode(config)],
    ['model.safetensors', weights],
  ] as const;
  return memoryFiles('toy', new Map(contents));
}

describe('a family that a test registers', () => {
  it('is not recognised before', async () => {
    await expect(readModel(toyModel())).rejects.toThrow('"ToyMeans" alone is not a model');
  });

  describe('once registered', () => {
    beforeAll(() => {
      FAMILIES.push(toy);
    });
    afterAll(() => {
      FAMILIES.splice(FAMILIES.indexOf(toy), 1);
    });

    it('has the candidates that its models define', async () => {
      expect(await readModel(toyModel())).toMatchObject({
        name: 'toy',
        labels: LABELS,
        inputShape: [CHANNELS, 1, 1],
        conditioning: 'class',
        temperature: 1,
      });
    });

    it('describes a model', async () => {
      const { pipeline, networks, problems, cost } = await describeModel(toyModel());
      expect(problems).toEqual([]);
      expect(pipeline).toBe('ToyMeans');
      expect(networks).toMatchObject([
        { part: '.', className: 'ToyMeans', config: { labels: LABELS }, parameters: 12, dtypes: { F32: 12 } },
      ]);
      expect(cost!.flop).toBeGreaterThan(0);
    });

    it('classifies', async () => {
      const classifier = await openClassifier(() => openModel(toyModel()));
      const results = [];
      for (const [i, label] of LABELS.entries()) {
        const pixels = Float32Array.from(MEANS.slice(4 * i, 4 * i + 4), (v) => 0.8 * v);
        const result = await classifier.classify({ path: label, pixels });
        results.push(result.label);
      }
      await classifier.close();
      expect(results).toEqual(LABELS);
    });

    it('rejects options that its models do not have', async () => {
      await expect(openModel(toyModel(), { unconditional: true })).rejects.toThrow('it has no such mean');
      await expect(openModel(toyModel(), { levels: () => [{ t: 3, weight: 1 }] })).rejects.toThrow(
        UnsupportedError,
      );
    });
  });
});
