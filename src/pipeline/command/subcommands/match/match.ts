// `match`: decides for each item which caption belongs to which image, and scores all items.

import { basename } from 'node:path';
import { faultOf, ItemError, UsageError } from '../../../../errors.ts';
import { type Candidate, type Model, NO_CLASS } from '../../../../graph/model.ts';
import type { ModelSummary } from '../../../../graph/model-summary.ts';
import { modelDigest } from '../../../../graph/node/model-digest.ts';
import type { Score } from '../../../deciding/matching.ts';
import { safeJson } from '../../../escaping.ts';
import { failureOf } from '../../../images/failures.ts';
import { itemFrom } from '../../../node/image-from.ts';
import type { OptionValues } from '../../../option.ts';
import type { Batcher, OpenModel } from '../../../stream/batcher.ts';
import { mapOrdered, until } from '../../../stream/iterables.ts';
import { pairErrors } from '../../../stream/pair-errors.ts';
import { acquire } from '../../../stream/sharing.ts';
import { madeBy, progressAfter } from '../../../types.ts';
import { type OptionName, readOptions } from '../../options/table.ts';
import { fileDigest, precisionRecord, sizeRecord } from '../../shared/evaluation-record.ts';
import { timeEvaluations } from '../../shared/evaluation-timing.ts';
import { writeForecast } from '../../shared/forecast.ts';
import type { Interruption } from '../../shared/interruption.ts';
import { evaluationOptions } from '../../shared/model-choice.ts';
import { modelFolder } from '../../shared/model-folder.ts';
import { checkGrid, checkResume } from '../../shared/option-checks.ts';
import { PathSet } from '../../shared/path-set.ts';
import { duration, several, short } from '../../shared/progress.ts';
import {
  interruptedText,
  type Run,
  type RunOutcome,
  runCommand,
  untilDropped,
} from '../../shared/run-command.ts';
import { type RunRecord, sameRun, writeRecord } from '../../shared/run-record.ts';
import type { Subcommand, Surroundings } from '../../shared/subcommand.ts';
import { exactly, runTimeOf, secondsOf } from '../../shared/timing.ts';
import { fileWriter, streamWriter, type Writer } from '../../shared/writers.ts';
import {
  count,
  dropUnfinished,
  type EarlierItems,
  earlierItems,
  type MatchLine,
  newTally,
  summaryOf,
} from './match-lines.ts';
import { inGroups, type MatchItem, readItems } from './match-table.ts';

const MATCH = [
  'model',
  'imageSize',
  'sizeConditioning',
  'timesteps',
  'sigmas',
  'loss',
  'weighting',
  'seed',
  'noise',
  'output',
  'lineFormat',
  'resume',
  'dryRun',
  'batch',
  'concurrency',
] as const satisfies readonly OptionName[];

/** A checked command line of `match`. */
type MatchSettings = ReturnType<typeof readSettings>;

const HELP = `
PAIRS.csv has the columns item, image and caption. The rows of an item follow each other, and an item has two rows or
more; paths of images are relative to the file. Every image of an item is evaluated under every caption of the item,
and under the empty caption, with the same noise. Each item becomes one line of JSON. The last line is the summary: the
share of items whose images all prefer their own caption (text), whose captions all prefer their own image (image), and
both (group), each with its 95 % interval; and the same after the error under the empty caption is subtracted.

Example:
  diffclass-stream match winoground.csv --model path/to/stable-diffusion --timesteps even:100 -o matches.jsonl
`;

function readSettings([table = '']: readonly string[], typed: OptionValues) {
  const settings = { ...readOptions(MATCH, typed), table };
  checkGrid(settings);
  checkResume(settings);
  return settings;
}

/** Makes candidates of the captions of some items and, after them, of the empty caption. */
function candidatesOf(items: readonly MatchItem[]) {
  const places = new Map<string, number>();
  for (const { captions } of items)
    for (const caption of captions) if (!places.has(caption)) places.set(caption, places.size);
  if (!places.has('')) places.set('', places.size);
  const candidates = [...places].map(
    ([prompt, place]): Candidate => ({ label: prompt, classidx: prompt === '' ? NO_CLASS : place, prompt }),
  );
  const choose = ({ name, conditioning }: ModelSummary) => {
    if (conditioning !== 'text')
      throw new UsageError(`match needs a text-to-image model; ${name} has classes of its own`);
    return candidates;
  };
  return { places, choose };
}

async function matchItem(
  batcher: Batcher,
  { item, images, captions }: MatchItem,
  places: ReadonlyMap<string, number>,
): Promise<MatchLine> {
  const { inputShape, crop } = batcher.model;
  const load = (path: string) =>
    itemFrom(path, inputShape, { crop }).catch((error: unknown) => {
      const { code, message } = failureOf(path, error).error;
      throw new ItemError(code, `${path}: ${message}`);
    });
  try {
    const pairs = {
      images: await Promise.all(images.map(load)),
      captions: captions.map((caption) => places.get(caption)!),
      unconditional: places.get('')!,
    };
    return { item, images, captions, ...(await pairErrors(batcher, pairs)) };
  } catch (error) {
    return { item, error: faultOf(error) };
  }
}

/** The output. It is opened after the first model: if no model can be opened, an existing file stays as it is. */
interface Results {
  /** Opens the output, with the model that the next lines are of, if there are any. */
  readonly open: (model?: Pick<Model, 'precision' | 'overlays'>) => Promise<Writer>;
  writer?: Writer;
}

/** Reads the whole table, and counts its items and the pairs that are evaluated at each noise level. */
async function countItems(table: string): Promise<{ readonly items: number; readonly pairs: number }> {
  let [items, pairs] = [0, 0];
  for await (const { images, captions } of readItems(table)) {
    items++;
    pairs += images.length * new Set([...captions, '']).size;
  }
  return { items, pairs };
}

/** Says how long matching will take. A model is opened and timed with the captions of the first group of items. */
async function dryRun(
  settings: MatchSettings,
  { openModel, stdout }: Surroundings,
  run: Run,
): Promise<RunOutcome> {
  const folder = await modelFolder(settings.model);
  const options = await evaluationOptions(settings);
  const { items, pairs } = await countItems(settings.table);
  for await (const group of inGroups(readItems(settings.table))) {
    const model = await openModel(folder, { ...options, candidates: candidatesOf(group).choose });
    run.atEnd(() => model.close());
    const opening = process.uptime();
    const evaluations = (pairs * model.levels.length) / items;
    const among = new Set([...group[0]!.captions, '']).size;
    const timing = await timeEvaluations(model, model.slots, among * model.levels.length, among);
    const forecast = {
      model: model.name,
      images: items,
      noun: 'items',
      work: { text: `${short(evaluations)} evaluations per item`, data: { evaluations } },
      timed: `${timing.runs} batches of ${short(timing.units)} evaluations`,
      time: runTimeOf(items, secondsOf(timing, exactly(evaluations)), opening + timing.once),
    };
    return writeForecast(stdout, forecast, settings.lineFormat);
  }
  return { failures: 0 };
}

/** Runs all items, group by group: a model is opened for the captions of each. Returns the names of model and device. */
async function matchAll(
  settings: MatchSettings,
  { openModel, reporter }: Surroundings,
  results: Results,
  { done, tally }: EarlierItems,
  interruption: Interruption,
): Promise<ReturnType<typeof madeBy> | undefined> {
  const folder = await modelFolder(settings.model);
  const options = await evaluationOptions(settings);
  const { items: total } = await countItems(settings.table);
  const earlier = { items: done.size, evaluations: tally.evaluations };
  const began = Date.now();
  const progress = () =>
    progressAfter((Date.now() - began) / 1000, {
      images: tally.items + tally.failures - earlier.items,
      failures: tally.failures, // those of earlier runs are tried again
      evaluations: tally.evaluations - earlier.evaluations,
    });
  const fresh = async function* () {
    for await (const item of readItems(settings.table)) if (!done.has(item.item)) yield item;
  };
  let made: ReturnType<typeof madeBy> | undefined;
  for await (const items of inGroups(fresh())) {
    if (interruption.stop.aborted) break;
    const { places, choose } = candidatesOf(items);
    const open: OpenModel = (request) => openModel(folder, { ...options, candidates: choose, ...request });
    const { batcher, release } = await acquire(open);
    const drop = () => release(interruption.drop.reason);
    interruption.drop.addEventListener('abort', drop);
    try {
      made = madeBy(batcher.model);
      results.writer ??= await results.open(batcher.model);
      const { writer } = results;
      const ahead = Math.max(1, Math.min(8, batcher.model.slots));
      const source = until(each(items), interruption.stop);
      await untilDropped(interruption, async () => {
        for await (const line of mapOrdered(source, ahead, (item) => matchItem(batcher, item, places))) {
          count(tally, line);
          await writer.write(`${safeJson(line)}\n`);
          if (writer.closed) return;
          reporter.progress(progress(), earlier.items, total);
        }
      });
      if (writer.closed) return made;
    } finally {
      interruption.drop.removeEventListener('abort', drop);
      release();
    }
  }
  const { images: matched, seconds } = progress();
  reporter.log('info', `${several(matched, 'item')} matched in ${duration(seconds)}`);
  return made;
}

async function* each<T>(values: readonly T[]): AsyncGenerator<T> {
  yield* values;
}

const percent = ({ score, interval: [low, high] }: Score) =>
  `${(100 * score).toFixed(1)} % (${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)})`;

/** Returns the settings that the lines depend on, before a model is opened: each group of captions opens its own. */
async function recordOf(settings: MatchSettings): Promise<RunRecord> {
  const { model, imageSize, sizeConditioning, timesteps, sigmas, loss, weighting, seed, noise } = settings;
  return {
    model: basename(model),
    'model files': await modelDigest(await modelFolder(model)),
    'image size': imageSize ?? "the model's own",
    ...sizeRecord(sizeConditioning),
    levels: timesteps ?? sigmas ?? "the model's own",
    loss: loss ?? "the model's own",
    weighting: weighting ?? "the model's own",
    seed,
    noise: await fileDigest(noise),
  };
}

/** Matches what the settings name: one line per item, and the summary at the end unless the run was interrupted. */
const matchPairs = (settings: MatchSettings, surroundings: Surroundings): Promise<number> =>
  runCommand(surroundings, async (run) => {
    const { stdout, reporter } = surroundings;
    const { table, output, resume, seed } = settings;
    if (settings.dryRun) return dryRun(settings, surroundings, run);
    const claimed = await run.claim(output, { option: '--output', inputs: [table] });
    const earlier =
      claimed && resume ? await earlierItems(claimed.path) : { done: new PathSet(), tally: newTally() };
    const record = await recordOf(settings);
    const none = new Set<string>();
    const found = { results: earlier.tally.items, models: none, seeds: none, precisions: none };
    if (claimed && resume) {
      const check = await sameRun(claimed.path, record, (text) => reporter.log('warn', text), [
        'precision',
        'loras',
        'embeddings',
      ]);
      check(found);
    }
    const results: Results = {
      async open(model) {
        if (!claimed) return streamWriter(stdout);
        const whole = { ...record, ...(model && { ...precisionRecord(model), ...model.overlays }) };
        if (resume) {
          if (model) (await sameRun(claimed.path, whole, () => {}))(found);
          await dropUnfinished(claimed.path);
        }
        const writer = await fileWriter(claimed.path, resume);
        if (claimed.isFile && (model || !resume)) await writeRecord(claimed.path, whole);
        return writer;
      },
    };
    run.atEnd(() => results.writer?.close());
    const interruption = run.listen(interruptedText('the items in flight'));
    const made = await matchAll(settings, surroundings, results, earlier, interruption);
    const { failures } = earlier.tally;
    const readerGone = results.writer?.closed === true;
    if (readerGone || interruption.status > 0) return { failures, readerGone };
    const summary = summaryOf(earlier.tally, { seed, ...made });
    results.writer ??= await results.open();
    await results.writer.write(`${safeJson({ summary })}\n`);
    for (const [what, { text, image, group }] of [
      ['', summary],
      ['less the unconditional error: ', summary.lessUnconditional],
    ] as const)
      reporter.log('info', `${what}text ${percent(text)}, image ${percent(image)}, group ${percent(group)}`);
    return { failures };
  });

export const match: Subcommand<MatchSettings> = {
  name: 'match',
  summary: 'Match images and captions with a text-to-image model.',
  operands: { '<PAIRS.csv>': 'table of items: item,image,caption' },
  options: MATCH,
  help: HELP,
  usesDevice: true,
  noun: 'items',
  read: readSettings,
  run: matchPairs,
};
