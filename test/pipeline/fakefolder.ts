// A fake of the graph's openModel, for tests of the command line: it asks the options for candidates and levels
// as the real one does, and makes a fake model of what they say.

import type { ModelSummary, OpenModelOptions } from '../../src/graph/openmodel.ts';
import { type Fake, fakeLevels, fakeModel, hash } from './fake.ts';

export const LABELS = ['ant', 'bee', 'cat', 'dog', 'elk', 'fox', 'gnu', 'hen', 'ibis', 'jay'];

export const SUMMARY: ModelSummary = {
  name: 'fake',
  conditioning: 'class',
  inputShape: [1, 2, 2],
  labels: LABELS,
  numTrainTimesteps: 1000,
  levels: fakeLevels(8),
  distance: 'l2',
  temperature: 0.01,
};

export interface FakeFolderOptions {
  /** Milliseconds that a batch takes. */
  readonly delay?: number;
  /** Keeps no record of batches and images, so that a long run needs no memory. */
  readonly forget?: boolean;
  /** Told when a batch begins. */
  readonly onBatch?: () => void;
  /** Told of every opening. */
  readonly opened?: (folder: string, options: OpenModelOptions, model: Fake) => void;
}

/** Opens a fake whose best class depends on the first pixel alone. */
export const fakeFolder =
  ({ delay = 0, forget = false, onBatch, opened }: FakeFolderOptions = {}) =>
  async (folder: string, options: OpenModelOptions): Promise<Fake> => {
    const candidates = options.candidates?.(SUMMARY) ?? [];
    const best = (pixel: number) => Math.round((pixel + 1) * 127.5) % LABELS.length;
    const model = fakeModel({
      candidates,
      levels: options.levels?.(SUMMARY) ?? SUMMARY.levels,
      batchSize: options.batchSize ?? 32,
      slots: options.slots ?? 8,
      errorOf: (pixel, candidate, level, noise) =>
        0.5 +
        (candidates[candidate]!.classidx === best(pixel) ? 0 : 0.1) +
        0.02 * hash(Math.round(pixel * 1000), candidate, level, noise, Number(options.seed ?? 0)),
      beforeBatch: () => {
        onBatch?.();
        if (forget) for (const list of [model.batches, model.encoded]) list.length = 0;
        return delay > 0 ? new Promise((resolve) => setTimeout(resolve, delay)) : undefined;
      },
    });
    opened?.(folder, options, model);
    return model;
  };
