// Records what the results of `classify` depend on, for the file next to its output.

import type { Model } from '../../../../graph/model.ts';
import { evaluationRecord, fileDigest, sizeRecord } from '../../shared/evaluation-record.ts';
import { listed, type RunRecord } from '../../shared/run-record.ts';
import type { Settings } from './classify-settings.ts';

/** Returns the record of a run of `classify` with an opened model. */
export async function classifyRecord(settings: Settings, model: Model, folder: string): Promise<RunRecord> {
  const { purifying, budget, topK, energy, timings } = settings;
  const { noiseFile, ...purification } = purifying ?? {};
  return {
    ...(await evaluationRecord(settings, model, folder)),
    ...sizeRecord(settings.sizeConditioning),
    candidates: listed(
      model.candidates.map(({ label, classidx, prompt }) =>
        prompt === undefined ? label : `${classidx} ${prompt}`,
      ),
    ),
    strategy: settings.deciding.record,
    budget: budget ?? 'none',
    purify: purifying ? `${JSON.stringify(purification)}, noise ${await fileDigest(noiseFile)}` : 'none',
    'top-k': topK,
    energy,
    timings,
  };
}
