// `classify --dry-run`: says what a run would cost, from timed batches and a few images that are classified for real.

import { ModelError } from '../../../../errors.ts';
import type { OpenModelOptions } from '../../../../graph/models/open-model.ts';
import { loadItem } from '../../../node/load.ts';
import { findImages } from '../../../node/sources.ts';
import { evaluationsOf } from '../../shared/evaluation-demand.ts';
import { timeEvaluations } from '../../shared/evaluation-timing.ts';
import type { OpenedModel } from '../../shared/opened-model.ts';
import { timePurification } from '../../shared/purify-timing.ts';
import type { Run, RunOutcome } from '../../shared/run-command.ts';
import type { Surroundings } from '../../shared/subcommand.ts';
import { writeReport } from '../../shared/writers.ts';
import type { Settings } from './classify-settings.ts';
import { estimateOf, estimateText } from './estimate.ts';
import { SAMPLE, sampleOf } from './sample-run.ts';

/** What is known when the run would begin. */
interface Planned {
  readonly classifier: OpenedModel;
  readonly folder: string;
  readonly options: OpenModelOptions;
  /** Seconds from the program's start until the model was open. */
  readonly opening: number;
}

/** Says what the run would cost, on standard output: as JSON if --format jsonl is given. */
export async function dryRun(
  settings: Settings,
  { stdin, stdout, describe, openModel }: Surroundings,
  { classifier: { model, open }, folder, options, opening }: Planned,
  run: Run,
): Promise<RunOutcome> {
  const { purifying, concurrency, nul } = settings;
  const deciding = { strategy: settings.deciding.strategy, budget: settings.budget };
  const demand = evaluationsOf(model, deciding);
  const { cost, problems } = await describe(folder, options);
  if (!cost) throw new ModelError(problems[0] ?? `${folder}: its cost is not known`);
  const first: string[] = [];
  let images = 0;
  for await (const found of findImages(settings.inputs, { stdin, nul }))
    if (typeof found === 'string' && images++ < SAMPLE) first.push(found);
  const inFlight = Math.max(1, Math.min(images, concurrency ?? model.slots, model.slots));
  const timing = await timeEvaluations(model, inFlight, demand.atOnce);
  const purification = purifying && (await timePurification(purifying, settings, images, folder, openModel));
  if (purification) run.atEnd(purification.close);
  const deviceBytes = model.deviceBytes ?? null;
  const load = (path: string) =>
    loadItem(path, model.inputShape, { crop: model.crop, maxPixels: settings.maxPixels });
  const purify = purification?.purify ?? ((pixels) => Promise.resolve(pixels));
  const sample = first.length > 0 ? await sampleOf(first, load, purify, open, deciding) : undefined;
  const measured = { images, demand, timing, sample, cost, opening, deviceBytes, purification };
  const estimate = estimateOf(model, measured);
  await writeReport(stdout, settings.format === 'jsonl' ? 'json' : 'text', estimate, estimateText(estimate));
  return { failures: 0 };
}
