// `attack`: images in, adversarial images and a report out.

import { mkdir, writeFile } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import { UsageError } from '../../../errors.ts';
import { attackAndJudge, judged, type Prediction } from '../../attacking/campaign.ts';
import { shareOf } from '../../attacking/wilson.ts';
import { fromModelInput, toUnit } from '../../images/pixels.ts';
import { itemFrom } from '../../node/image-from.ts';
import type { OptionValues } from '../../option.ts';
import { type ItemFailure, isFailure, madeBy } from '../../types.ts';
import { type OptionName, readOptions } from '../options/table.ts';
import {
  ATTACK_OPTIONS,
  checkRobust,
  type Opened,
  openCampaign,
  planOf,
  ROBUST,
} from '../shared/attack-campaign.ts';
import { forecastRobust } from '../shared/attack-forecast.ts';
import { countFound, inputsOf } from '../shared/inputs.ts';
import { modelFolder } from '../shared/model-folder.ts';
import { checkOutputFolder } from '../shared/output-checks.ts';
import { type NamedInput, namedInputs, pngName } from '../shared/output-names.ts';
import { duration, several } from '../shared/progress.ts';
import { provenanceOf, weightsHash } from '../shared/provenance.ts';
import { PURIFY_FIRST_OPTIONS } from '../shared/purify-settings.ts';
import { refusing } from '../shared/refusing.ts';
import { interruptedText, type Run, type RunOutcome, runCommand } from '../shared/run-command.ts';
import { runItems } from '../shared/run-items.ts';
import type { Subcommand, Surroundings } from '../shared/subcommand.ts';
import { placeOf, readLabels } from '../shared/truths.ts';
import { writePng } from '../shared/whole-files.ts';

const ATTACK = [
  ...ROBUST,
  'attack',
  'truth',
  'out',
  'null',
  'maxPixels',
  'reportFormat',
  'dryRun',
] as const satisfies readonly OptionName[];

/** A checked command line of `attack`. Its `truth` is `folders` or a table of labels. */
type AttackSettings = ReturnType<typeof readSettings>;

const HELP = `
INPUT is an image file, a folder (with its sub-folders), a pattern in quotes, or - for paths on standard input. The true
class of an image is the name or number of the folder that it is in, or is read from a CSV file (path,label; paths
relative to that file).

An adversarial PNG for every image is written to --out, in the size that the model takes, and report.json next to them.
For every image the report has the label, the clean and the adversarial prediction, the margin (logit of the label minus
the largest other logit), distances and queries. Each PNG is judged as it is written: as 8 bits, within the ball.

Examples:
  diffclass-stream attack testset/ --attack apgd-t --eps 8/255 --out adversarial/
  diffclass-stream attack *.png --truth labels.csv --attack square --norm l2 --eps 0.5 --out adversarial/
  diffclass-stream attack testset/ --purify lm-adam --gradient full --eot 4 --eps 8/255 --out adversarial/
`;

function readSettings(inputs: readonly string[], typed: OptionValues) {
  const { null: nul, out, truth = 'folders', ...values } = readOptions(ATTACK, typed);
  const all = inputsOf(inputs, nul);
  if (out === undefined) throw new UsageError('--out is missing; name the folder for the adversarial images');
  return { ...values, ...checkRobust(values, [values.attack], typed), inputs: all, nul, out, truth };
}

/** An image to be attacked, with the name of its file in --out and its true class. */
type AttackedImage = Pick<NamedInput, 'path' | 'image' | 'name'> & { readonly label: string };

/** Returns the folder that names an image's class: the first one below the input, or else the one that holds the image. */
function folderLabel(path: string, root: string): string {
  const [first, ...rest] = relative(resolve(root), resolve(path)).split(sep);
  return rest.length > 0 ? first! : basename(dirname(resolve(path)));
}

/** Yields the images of the inputs with their true classes. */
async function* attackedImages(
  settings: AttackSettings,
  surroundings: Surroundings,
): AsyncGenerator<AttackedImage | ItemFailure> {
  const { truth } = settings;
  const table =
    truth === 'folders'
      ? undefined
      : new Map(
          (await readLabels(truth)).map(({ path, label }) => [
            isAbsolute(path) ? path : resolve(dirname(truth), path),
            label,
          ]),
        );
  for await (const item of namedInputs(settings, surroundings)) {
    if (isFailure(item)) {
      yield item;
      continue;
    }
    const { path, image, root, name } = item;
    const label = table ? table.get(resolve(path)) : folderLabel(path, root);
    if (label === undefined) throw new UsageError(`${truth}: has no label for ${path}`);
    yield { path, image, name: pngName(name), label };
  }
}

/** Attacks an image and writes the result. Returns the entry of the image in the report. */
async function attackOne(
  { path, image, name, label }: AttackedImage,
  settings: AttackSettings,
  { model, campaign, labels }: Opened,
) {
  const { inputShape: shape, crop } = model;
  const place = placeOf(label, path, labels);
  const x = toUnit((await itemFrom(image, shape, { crop, maxPixels: settings.maxPixels })).pixels);
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
    /** The prediction for the written file. */
    adversarial: named(found.quantised),
    /** For the written file: the logit of the label minus the largest other logit. */
    margin: found.quantised.margin,
    /** The prediction before the image became 8 bits. */
    unquantised: named(found),
    broken: found.broken,
    /** Distances of the written file, for pixels in [0, 1]. */
    linf: found.linf,
    l2: found.l2,
    queries: found.queries,
  };
}

/** Says how long the attack will take. */
async function dryRun(settings: AttackSettings, surroundings: Surroundings, run: Run): Promise<RunOutcome> {
  const images = await countFound(attackedImages(settings, surroundings));
  // The judge sees the clean image once and the result twice; the attack needs the logits of the clean image.
  const least = { judge: 3, logits: settings.eot, gradients: 0 };
  return forecastRobust(settings, [settings.attack], images, least, surroundings, run);
}

/** Attacks the inputs, and writes the images and the report; after an interruption, those that were finished. */
const attackInputs = (settings: AttackSettings, surroundings: Surroundings): Promise<number> =>
  runCommand(surroundings, async (run) => {
    const { openModel, reporter } = surroundings;
    const { attack: name, out, truth, purifying, gradientMode, levelsPerStep, seed } = settings;
    const { norm = 'linf', epsText } = settings;
    const folder = await modelFolder(settings.model);
    if (truth !== 'folders') await readLabels(truth);
    await checkOutputFolder('--out', out);
    if (settings.dryRun) return dryRun(settings, surroundings, run);
    const opened = await openCampaign(settings, openModel, [name]);
    run.atEnd(opened.close);
    const interruption = run.listen(interruptedText('the images under attack'));
    const made = { ...provenanceOf(opened.model), weights: await weightsHash(folder) };
    const {
      results: images,
      failures,
      seconds,
    } = await runItems(attackedImages(settings, surroundings), (item) => attackOne(item, settings, opened), {
      concurrency: opened.concurrency,
      interruption,
      reporter,
    });
    const right = images.filter(({ label, clean }) => label === clean);
    const held = right.filter(({ broken }) => !broken).length;
    reporter.log(
      'info',
      `${several(images.length, 'image')} attacked in ${duration(seconds)}: ${right.length} right before, ${held} after`,
    );
    const { eot, randomness } = opened.campaign;
    const report = {
      ...madeBy(opened.model),
      ...made,
      ...planOf(name, settings),
      norm,
      eps: epsText,
      eot,
      randomness,
      seed,
      ...(levelsPerStep === undefined ? {} : { levelsPerStep }),
      ...(purifying ? { purify: purifying.method, gradient: gradientMode } : {}),
      clean: shareOf(right.length, images.length),
      robust: shareOf(held, images.length),
      images,
      failures,
    };
    const file = join(out, 'report.json');
    await mkdir(out, { recursive: true })
      .then(() => writeFile(file, `${JSON.stringify(report, null, 1)}\n`))
      .catch(refusing(`--out: ${file} cannot be written`));
    return { failures: failures.length };
  });

export const attack: Subcommand<AttackSettings> = {
  name: 'attack',
  summary: 'Make adversarial examples: change images slightly, so that the model classifies them wrong.',
  operands: { '[INPUT...]': 'image files, folders, patterns or -' },
  options: ATTACK,
  entryOptions: { Attacking: ATTACK_OPTIONS, Purifying: PURIFY_FIRST_OPTIONS },
  help: HELP,
  usesDevice: true,
  read: readSettings,
  run: attackInputs,
};
