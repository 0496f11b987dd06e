// `match`: which caption belongs to which image, item by item, and the scores of it all.

import { truncate } from 'node:fs/promises';
import type { Candidate } from '../../graph/model.ts';
import type { ModelSummary } from '../../graph/modelsummary.ts';
import type { OpenModelOptions } from '../../graph/openmodel.ts';
import type { Score } from '../deciding/matching.ts';
import { faultOf, ItemError, UsageError } from '../errors.ts';
import { failureOf } from '../images/failures.ts';
import { loadImage } from '../images/load.ts';
import { mapOrdered, until } from '../stream/iterables.ts';
import { pairErrors } from '../stream/match.ts';
import { openSession, type Session } from '../stream/session.ts';
import { madeBy, progressAfter } from '../types.ts';
import { newCommand, type Texts } from './command.ts';
import { type Interruption, interruptible } from './interruption.ts';
import { count, type EarlierItems, earlierItems, type MatchLine, newTally, summaryOf } from './matchlines.ts';
import { checkModel, evaluationOptions } from './modelchoice.ts';
import { modelFolder } from './modelfolder.ts';
import { addOptions, type OptionName, readOptions, type Values } from './options/table.ts';
import { inGroups, type MatchItem, readItems } from './pairs.ts';
import { PathSet } from './pathset.ts';
import { duration, short } from './progress.ts';
import type { Surroundings } from './run.ts';
import { checkShared } from './settings.ts';
import { fileWriter, streamWriter, type Writer } from './sinks.ts';

const MATCH = [
  'model',
  'imageSize',
  'timesteps',
  'sigmas',
  'loss',
  'weighting',
  'seed',
  'noise',
  'output',
  'resume',
  'quiet',
  'logLevel',
  'batch',
  'concurrency',
] as const satisfies readonly OptionName[];

/** A checked command line of `match`. */
export interface MatchSettings extends Values<(typeof MATCH)[number]> {
  readonly table: string;
}

const AFTER = `
PAIRS.csv has the columns item, image and caption; the rows of an item follow each other, and an item has two
rows or more. Paths of images are relative to the file. Every image of an item is evaluated under every caption
of it, and under none, with the same noise; each item is one line of JSON, and the last line is the summary:
the share of items whose images all prefer their own caption (text), whose captions all prefer their own image
(image), and both (group), also with the error under no caption subtracted, each with its 95 % interval.

Example:
  diffclass-stream match winoground.csv --model path/to/stable-diffusion --timesteps even:100 -o matches.jsonl
`;

/** The command `match` as people see it. */
export const matchCommand = (texts: Texts) =>
  addOptions(
    newCommand('diffclass-stream match', texts)
      .description('Match images and captions with a text-to-image model.')
      .usage('[options] PAIRS.csv')
      .argument('<PAIRS.csv>', 'table of items: item,image,caption')
      .addHelpText('after', AFTER),
    MATCH,
  );

/** Checks a command line of `match`. @throws UsageError, one sentence. */
export function readMatchSettings(
  [table = '']: readonly string[],
  typed: Readonly<Record<string, unknown>>,
): MatchSettings {
  const settings = { ...readOptions(MATCH, typed), table };
  checkShared(settings);
  return settings;
}

/** The captions of some items as candidates, and the empty prompt behind them. */
function candidatesOf(items: readonly MatchItem[]) {
  const places = new Map<string, number>();
  for (const { captions } of items)
    for (const caption of captions) if (!places.has(caption)) places.set(caption, places.size);
  if (!places.has('')) places.set('', places.size);
  const candidates = [...places].map(
    ([prompt, classidx]): Candidate => ({ label: prompt, classidx, prompt }),
  );
  const choose = ({ name, conditioning }: ModelSummary) => {
    if (conditioning !== 'text')
      throw new UsageError(`match wants a text-to-image model; ${name} has classes of its own`);
    return candidates;
  };
  return { places, choose };
}

async function matchItem(
  session: Session,
  { item, images, captions }: MatchItem,
  places: ReadonlyMap<string, number>,
): Promise<MatchLine> {
  const { inputShape, crop } = session.model;
  const load = (path: string) =>
    loadImage(path, inputShape, { crop }).catch((error: unknown) => {
      const { code, message } = failureOf(path, error).error;
      throw new ItemError(code, `${path}: ${message}`);
    });
  try {
    const pairs = {
      images: await Promise.all(images.map(load)),
      captions: captions.map((caption) => places.get(caption)!),
      unconditional: places.get('')!,
    };
    return { item, images, captions, ...(await pairErrors(session, pairs)) };
  } catch (error) {
    return { item, error: faultOf(error) };
  }
}

/** Where results go, opened when the first model is there, so that one that is refused leaves a file alone. */
interface Results {
  readonly open: () => Promise<Writer>;
  writer?: Writer;
}

/** Runs all items, group by group: a model is opened for the captions of each. Returns what made the results. */
async function matchAll(
  settings: MatchSettings,
  { openModel, reporter }: Surroundings,
  results: Results,
  { done, tally }: EarlierItems,
  interruption: Interruption,
): Promise<ReturnType<typeof madeBy> | undefined> {
  const folder = await modelFolder(settings.model);
  const options = await evaluationOptions(settings);
  let total = 0;
  for await (const _ of readItems(settings.table)) total++; // the whole table is checked before anything runs
  const earlier = { items: done.size, evaluations: tally.evaluations, failures: tally.failures };
  const began = Date.now();
  const report = () => {
    const counts = {
      images: tally.items + tally.failures - earlier.items,
      failures: tally.failures - earlier.failures,
      evaluations: tally.evaluations - earlier.evaluations,
    };
    reporter.progress(progressAfter((Date.now() - began) / 1000, counts), earlier.items, total);
  };
  const fresh = async function* () {
    for await (const item of readItems(settings.table)) if (!done.has(item.item)) yield item;
  };
  let made: ReturnType<typeof madeBy> | undefined;
  for await (const items of inGroups(fresh())) {
    if (interruption.stop.aborted) break;
    const { places, choose } = candidatesOf(items);
    const chosen: OpenModelOptions = { ...options, candidates: choose };
    const session = await openSession((wanted) => openModel(folder, { ...chosen, ...wanted }));
    const drop = () => session.close(interruption.drop.reason);
    interruption.drop.addEventListener('abort', drop);
    try {
      made = madeBy(session.model);
      checkModel(settings, session.model);
      results.writer ??= await results.open();
      const ahead = Math.max(1, Math.min(8, session.model.slots));
      const source = until(each(items), interruption.stop);
      for await (const line of mapOrdered(source, ahead, (item) => matchItem(session, item, places))) {
        count(tally, line);
        await results.writer.write(`${JSON.stringify(line)}\n`);
        if (results.writer.closed) return made;
        report();
      }
    } catch (error) {
      if (!interruption.drop.aborted || error !== interruption.drop.reason) throw error;
    } finally {
      interruption.drop.removeEventListener('abort', drop);
      session.close();
    }
  }
  const matched = tally.items + tally.failures - earlier.items;
  reporter.log('info', `${short(matched)} items in ${duration((Date.now() - began) / 1000)}`);
  return made;
}

async function* each<T>(values: readonly T[]): AsyncGenerator<T> {
  yield* values;
}

const percent = ({ score, interval: [low, high] }: Score) =>
  `${(100 * score).toFixed(1)} % (${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)})`;

/**
 * Matches what the settings name and writes an item a line, then the summary. Returns the exit status: 0 all
 * matched, 1 some items failed, 130 interrupted (then without a summary).
 *
 * @throws UsageError, ModelError and the device's errors, which end the run.
 */
export async function match(settings: MatchSettings, surroundings: Surroundings): Promise<number> {
  const { stdout, signals, reporter } = surroundings;
  const { output, resume, seed } = settings;
  const earlier = resume ? await earlierItems(output) : { done: new PathSet(), tally: newTally(), bytes: 0 };
  const results: Results = {
    async open() {
      if (output === '-') return streamWriter(stdout);
      if (earlier.bytes > 0) await truncate(output, earlier.bytes);
      return fileWriter(output, earlier.bytes > 0);
    },
  };
  const interruption = interruptible(signals, () =>
    reporter.log('warn', 'interrupted; finishing the items in flight (once more to stop now)'),
  );
  try {
    const made = await matchAll(settings, surroundings, results, earlier, interruption);
    if (results.writer?.closed) return 0;
    if (interruption.status > 0) return interruption.status;
    const summary = summaryOf(earlier.tally, { seed, ...made });
    results.writer ??= await results.open();
    await results.writer.write(`${JSON.stringify({ summary })}\n`);
    for (const [what, { text, image, group }] of [
      ['', summary],
      ['less the unconditional error: ', summary.lessUnconditional],
    ] as const)
      reporter.log('info', `${what}text ${percent(text)}, image ${percent(image)}, group ${percent(group)}`);
    return summary.failures > 0 ? 1 : 0;
  } finally {
    interruption.release();
    await results.writer?.close();
  }
}
