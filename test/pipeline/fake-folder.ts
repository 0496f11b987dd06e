// A fake of the graph's openModel, for tests of the command line. It calls the options for candidates and levels like the
// real one, and creates a fake model with them.

import type { Candidate } from '../../src/graph/model.ts';
import type { ModelSummary } from '../../src/graph/model-summary.ts';
import type { Description } from '../../src/graph/models/describe.ts';
import type { OpenModelOptions } from '../../src/graph/models/open-model.ts';
import { type Fake, fakeLevels, fakeModel, hash } from './fake-model.ts';

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

/** A model that reads prompts; its images have any even side. */
export const TEXT_SUMMARY: ModelSummary = {
  ...SUMMARY,
  conditioning: 'text',
  labels: [],
  sideMultiple: 2,
};

export interface FakeFolderOptions {
  /** The summary of the folder; that of a class-conditional model by default. */
  readonly summary?: ModelSummary;
  /** Returns the best candidate of an image from the byte of its first pixel; by default classidx byte modulo 10. */
  readonly isBest?: (candidate: Candidate, byte: number) => boolean;
  /** Returns the error of an evaluation from the image's first byte, instead of `best`. */
  readonly errorOf?: (byte: number, candidate: Candidate, level: number, noise: number) => number;
  /** Milliseconds per batch. */
  readonly delay?: number;
  /** Records neither batches nor images, so that a long run needs no memory. */
  readonly forget?: boolean;
  /** Called at the start of every batch. */
  readonly onBatch?: () => void;
  /** Called with the options of every opening. */
  readonly opened?: (folder: string, options: OpenModelOptions, model: Fake) => void;
}

/** Opens a fake model whose best class depends only on the first pixel. */
export const fakeFolder =
  ({
    summary = SUMMARY,
    isBest = ({ classidx }, byte) => classidx === byte % LABELS.length,
    errorOf,
    delay = 0,
    forget = false,
    onBatch,
    opened,
  }: FakeFolderOptions = {}) =>
  async (folder: string, options: OpenModelOptions): Promise<Fake> => {
    const levels = options.levels?.(summary) ?? summary.levels;
    const candidates = options.candidates?.(summary) ?? [];
    const side = options.imageSize ?? summary.inputShape[1];
    const model = fakeModel({
      candidates,
      levels,
      inputShape: [1, side, side],
      batchSize: options.batchSize ?? 32,
      slots: options.slots ?? 8,
      numberOf: (pixel) => pixel,
      errorOf: (pixel, candidate, level, noise) =>
        errorOf?.(Math.round((pixel + 1) * 127.5), candidates[candidate]!, level, noise) ??
        0.5 +
          (isBest(candidates[candidate]!, Math.round((pixel + 1) * 127.5)) ? 0 : 0.1) +
          0.02 * hash(Math.round(pixel * 1000), candidate, level, noise, Number(options.seed ?? 0)),
      beforeBatch: () => {
        onBatch?.();
        if (forget) for (const list of [model.batches, model.encoded]) list.length = 0;
        return delay > 0 ? new Promise((resolve) => setTimeout(resolve, delay)) : undefined;
      },
    });
    opened?.(folder, options, model);
    return options.precision === 'f16' ? Object.assign(model, { precision: options.precision }) : model;
  };

/** Describes a folder without problems, or with the given ones. */
export const fakeDescribe =
  (changes: Partial<Description> = {}) =>
  async (path: string): Promise<Description> => ({
    name: 'fake',
    path,
    pipeline: 'FakePipeline',
    predictionType: 'v_prediction',
    model: SUMMARY,
    networks: [
      {
        part: 'unet',
        className: 'FakeNetwork',
        config: { in_channels: 4, block_out_channels: [8, 16] },
        parameters: 1_234_567,
        bytes: 2_469_134,
        dtypes: { F16: 1_234_567 },
        shards: 2,
      },
    ],
    cost: { flop: 1.5e9, weightBytes: 4_938_268, activationBytes: 1_000_000 },
    problems: [],
    ...changes,
  });
