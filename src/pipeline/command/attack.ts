// `attack`: images in, adversarial images out, and a report on each.

import { mkdir, writeFile } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import { attackAndJudge, judged, type Prediction } from '../attacking/campaign.ts';
import type { Queries } from '../attacking/defended.ts';
import { type Share, shareOf } from '../attacking/wilson.ts';
import { UsageError } from '../errors.ts';
import { failureOf, systemCode } from '../images/failures.ts';
import { loadImage } from '../images/load.ts';
import { fromModelInput, toUnit } from '../images/pixels.ts';
import { mapOrdered, until } from '../stream/iterables.ts';
import { unlessAborted } from '../stream/pull.ts';
import { type ItemFailure, isFailure, madeBy, progressAfter } from '../types.ts';
import { newCommand, type Texts } from './command.ts';
import { type Interruption, interruptible } from './interruption.ts';
import { addOptions, type OptionName, readOptions, type Values } from './options/table.ts';
import { namedInputs, pngName } from './outputnames.ts';
import { writePng } from './pngfile.ts';
import { duration, short } from './progress.ts';
import { checkRobust, type Opened, openCampaign, planOf, ROBUST, type RobustSettings } from './robust.ts';
import type { Surroundings } from './run.ts';
import { checkInputs } from './settings.ts';
import { placeOf, readLabels } from './truths.ts';

const ATTACK = [...ROBUST, 'attack', 'labelsFrom', 'out', 'null'] as const satisfies readonly OptionName[];

/** A checked command line of `attack`. */
export interface AttackSettings
  extends RobustSettings,
    Pick<Values<(typeof ATTACK)[number]>, 'attack' | 'labelsFrom'> {
  readonly inputs: readonly string[];
  readonly nul: boolean;
  readonly out: string;
}

const AFTER = `
Writes an adversarial PNG for every image to --out, of the size the model takes, and report.json beside them: label,
clean and adversarial prediction, margin (logit of the label less the largest other), distances and queries of every
image. The file is judged as it is written, as 8 bits within the ball. True classes are the folders that images are
in, by name or number, or those of a CSV file (path,label; paths relative to the file).

Examples:
  diffclass-stream attack testset/ --attack apgd-t --eps 8/255 --out adversarial/
  diffclass-stream attack *.png --labels-from labels.csv --attack square --norm l2 --eps 0.5 --out adversarial/
  diffclass-stream attack testset/ --purify lm-adam --gradient full --eot 4 --eps 8/255 --out adversarial/
`;

/** The command `attack` as people see it. */
export const attackCommand = (texts: Texts) =>
  addOptions(
    newCommand('diffclass-stream attack', texts)
      .description('Change images so that a model takes them for something else.')
      .usage('[options] INPUT...')
      .argument('[INPUT...]', 'image files, folders, patterns or -')
      .addHelpText('after', AFTER),
    ATTACK,
  );

/** Checks a command line of `attack`. @throws UsageError, one sentence. */
export function readAttackSettings(
  inputs: readonly string[],
  typed: Readonly<Record<string, unknown>>,
): AttackSettings {
  const { null: nul, out, ...values } = readOptions(ATTACK, typed);
  const all = nul && !inputs.includes('-') ? [...inputs, '-'] : inputs;
  checkInputs(all);
  if (out === undefined) throw new UsageError('--out is missing: the folder for the adversarial images');
  return { ...values, ...checkRobust(values, [values.attack]), inputs: all, nul, out };
}

interface Victim {
  readonly path: string;
  /** The name of its file beneath --out. */
  readonly name: string;
  readonly label: string;
}

/** The folder that says what class an image is of: the first beneath the input, else the one it is in. */
function folderLabel(path: string, root: string): string {
  const [first, ...rest] = relative(resolve(root), resolve(path)).split(sep);
  return rest.length > 0 ? first! : basename(dirname(resolve(path)));
}

async function* victims(
  settings: AttackSettings,
  surroundings: Surroundings,
): AsyncGenerator<Victim | ItemFailure> {
  const { labelsFrom } = settings;
  const table =
    labelsFrom === 'folders'
      ? undefined
      : new Map(
          (await readLabels(labelsFrom)).map(({ path, label }) => [
            isAbsolute(path) ? path : resolve(dirname(labelsFrom), path),
            label,
          ]),
        );
  for await (const item of namedInputs(settings, surroundings)) {
    if (isFailure(item)) {
      yield item;
      continue;
    }
    const { path, root, name } = item;
    const label = table ? table.get(resolve(path)) : folderLabel(path, root);
    if (label === undefined) throw new UsageError(`${labelsFrom}: has no label for ${path}`);
    yield { path, name: pngName(name), label };
  }
}

/** What the report says of an image. */
export interface ReportLine {
  readonly path: string;
  readonly file: string;
  readonly label: string;
  readonly clean: string;
  /** What the written file is taken for. */
  readonly adversarial: string;
  /** Of the written file: logit of the label less the largest other. */
  readonly margin: number;
  /** What it was taken for before it became 8 bits. */
  readonly unquantised: string;
  readonly broken: boolean;
  /** Of the written file, for pixels in [0, 1]. */
  readonly linf: number;
  readonly l2: number;
  readonly queries: Queries;
}

async function attackOne(
  { path, name, label }: Victim,
  settings: AttackSettings,
  { model, campaign, labels }: Opened,
): Promise<ReportLine> {
  const { inputShape: shape, crop } = model;
  const place = placeOf(label, path, labels);
  const x = toUnit(await loadImage(path, shape, { crop }));
  const named = ({ prediction }: Prediction) => labels[prediction]!.label;
  const clean = await judged(campaign.judge, x, place);
  const found = await attackAndJudge(campaign, planOf(settings.attack, settings), {
    x,
    label: place,
    key: basename(path),
  });
  const pixels = Float32Array.from(found.x, (v) => 2 * v - 1);
  await writePng(join(settings.out, name), fromModelInput(pixels, shape));
  return {
    path,
    file: name,
    label: labels[place]!.label,
    clean: named(clean),
    adversarial: named(found.quantised),
    margin: found.quantised.margin,
    unquantised: named(found),
    broken: found.broken,
    linf: found.linf,
    l2: found.l2,
    queries: found.queries,
  };
}

interface Report {
  readonly clean: Share;
  readonly robust: Share;
  readonly images: readonly ReportLine[];
  readonly failures: readonly ItemFailure[];
}

async function attackAll(
  settings: AttackSettings,
  surroundings: Surroundings,
  opened: Opened,
  interruption: Interruption,
): Promise<Report> {
  const { reporter } = surroundings;
  const lines: ReportLine[] = [];
  const failures: ItemFailure[] = [];
  const began = Date.now();
  const run = async (item: Victim | ItemFailure): Promise<ReportLine | ItemFailure> => {
    if (isFailure(item)) return item;
    try {
      return await unlessAborted(attackOne(item, settings, opened), interruption.drop);
    } catch (error) {
      if (error instanceof UsageError || interruption.drop.aborted) throw error;
      return failureOf(item.path, error);
    }
  };
  try {
    const source = until(victims(settings, surroundings), interruption.stop);
    for await (const result of mapOrdered(source, opened.concurrency, run)) {
      if (isFailure(result)) {
        failures.push(result);
        reporter.log('warn', `${result.path}: ${result.error.message}`);
      } else lines.push(result);
      const images = lines.length + failures.length;
      const counts = { images, failures: failures.length, evaluations: 0 };
      reporter.progress(progressAfter((Date.now() - began) / 1000, counts), 0, undefined);
    }
  } catch (error) {
    if (!interruption.drop.aborted || error !== interruption.drop.reason) throw error;
  }
  const right = lines.filter(({ label, clean }) => label === clean);
  const held = right.filter(({ broken }) => !broken).length;
  reporter.log(
    'info',
    `${short(lines.length)} images attacked in ${duration((Date.now() - began) / 1000)}: ` +
      `${right.length} were right, ${held} still are`,
  );
  return {
    clean: shareOf(right.length, lines.length),
    robust: shareOf(held, lines.length),
    images: lines,
    failures,
  };
}

/**
 * Attacks what the settings name and writes images and report. Returns the exit status: 0 all attacked, 1 some items
 * failed, 130 interrupted (the report then holds what was done).
 *
 * @throws UsageError, ModelError and the device's errors, which end the run.
 */
export async function attack(settings: AttackSettings, surroundings: Surroundings): Promise<number> {
  const { openModel, signals, reporter } = surroundings;
  const { attack: name, out, purifying, gradientMode, levelsPerStep, seed, norm = 'linf', eps } = settings;
  const opened = await openCampaign(settings, openModel, [name]);
  const interruption = interruptible(signals, () =>
    reporter.log('warn', 'interrupted; finishing the images under attack (once more to stop now)'),
  );
  try {
    const { clean, robust, images, failures } = await attackAll(settings, surroundings, opened, interruption);
    const { eot, randomness } = opened.campaign;
    const report = {
      ...madeBy(opened.model),
      ...planOf(name, settings),
      norm,
      eps,
      eot,
      randomness,
      seed,
      ...(levelsPerStep === undefined ? {} : { levelsPerStep }),
      ...(purifying ? { purify: purifying.method, gradient: gradientMode } : {}),
      clean,
      robust,
      images,
      failures,
    };
    const file = join(out, 'report.json');
    await mkdir(out, { recursive: true })
      .then(() => writeFile(file, `${JSON.stringify(report, null, 1)}\n`))
      .catch((error: unknown) => {
        throw new UsageError(`--out: ${file} cannot be written (${systemCode(error) ?? error})`);
      });
    if (interruption.status > 0) return interruption.status;
    return failures.length > 0 ? 1 : 0;
  } finally {
    interruption.release();
    opened.close();
  }
}
