// `info`: says what a model folder holds, what an evaluation costs, and what is wrong with it.

import { UsageError } from '../../../errors.ts';
import { type Description, type NetworkDescription, totalFlop } from '../../../graph/models/describe.ts';
import type { OptionValues } from '../../option.ts';
import { type OptionName, readOptions, type Values } from '../options/table.ts';
import { modelFolder } from '../shared/model-folder.ts';
import { bytes, gigaflop, several, short } from '../shared/progress.ts';
import type { Subcommand, Surroundings } from '../shared/subcommand.ts';
import { writeReport } from '../shared/writers.ts';

const INFO = [
  'model',
  'prediction',
  'vae',
  'lora',
  'embedding',
  'precision',
  'reportFormat',
] as const satisfies readonly OptionName[];

type InfoSettings = Values<(typeof INFO)[number]>;

const HELP = `
Exit status: 0 the folder is in order, 3 it is not (every problem is listed).
`;

function readSettings([model]: readonly string[], typed: OptionValues): InfoSettings {
  if (model !== undefined && typed.model !== undefined)
    throw new UsageError(`info: got two models, "${model}" and --model "${typed.model}"`);
  return readOptions(INFO, model === undefined ? typed : { ...typed, model });
}

/** How many of a model's labels are shown. */
const SHOWN = 5;

/** Makes the JSON of a description, with all labels and plain numbers. */
function asJson({ model, cost, ...rest }: Description): object {
  const summary = model && {
    conditioning: model.conditioning,
    inputShape: model.inputShape,
    ...(model.sideMultiple === undefined ? {} : { sideMultiple: model.sideMultiple }),
    crop: model.crop ?? 'centre',
    classes: model.labels.length,
    labels: model.labels,
    ...(model.heads === undefined ? {} : { heads: model.heads }),
    ...(model.numTrainTimesteps > 0 ? { timesteps: model.numTrainTimesteps } : {}),
    levels: model.levels.map(({ t, sigma }) => t ?? sigma),
    loss: model.distance,
    temperature: model.temperature,
  };
  return {
    ...rest,
    ...(summary ? { model: summary } : {}),
    ...(cost && {
      gflop: cost.flop / 1e9,
      ...(cost.sharedFlop === undefined ? {} : { gflopShared: cost.sharedFlop / 1e9 }),
      memory: { weights: cost.weightBytes, activations: cost.activationBytes },
      ...(cost.precision === 'f16' && { precision: cost.precision }),
    }),
  };
}

function networkText({ className, parameters, dtypes, bytes: size, shards, config }: NetworkDescription) {
  const kinds = Object.entries(dtypes).map(([dtype, values]) =>
    Object.keys(dtypes).length === 1 ? dtype : `${dtype} ${short((100 * values) / parameters)} %`,
  );
  const first = `${className}, ${short(parameters)} parameters, ${kinds.join(', ')}, ${bytes(size)} in ${several(shards, 'file')}`;
  const numbers = Object.entries(config).map(
    ([key, value]) => `${key} ${Array.isArray(value) ? value.join(',') : value}`,
  );
  return [first, ...numbers];
}

/** Formats a description for a person. */
export function infoText({
  name,
  path,
  pipeline,
  predictionType,
  model,
  networks,
  cost,
  note,
  problems,
}: Description): string {
  const rows: (readonly [what: string, value: string])[] = [['model', `${name} (${path})`]];
  if (pipeline !== undefined) rows.push(['pipeline', pipeline]);
  if (model) {
    const [channels, height, width] = model.inputShape;
    const other =
      model.sideMultiple === undefined ? '' : `, or any multiple of ${model.sideMultiple} per side`;
    rows.push(['images', `${channels} x ${height} x ${width}${other}`]);
    const shown = model.labels.slice(0, SHOWN).join(', ');
    rows.push([
      'classes',
      model.conditioning === 'text'
        ? 'any, by --labels or --prompts'
        : model.labels.length === 0
          ? 'none'
          : `${short(model.labels.length)}: ${shown}${model.labels.length > SHOWN ? ', ...' : ''}`,
    ]);
    if (model.heads !== undefined)
      rows.push([
        'multi-head',
        `${model.heads} heads: all classes ${model.heads > model.labels.length ? 'and none ' : ''}in one run of the network`,
      ]);
    const levels = model.levels.map(({ t, sigma }) => t ?? sigma ?? 0);
    const timesteps = model.numTrainTimesteps;
    const of =
      timesteps > 0
        ? `${short(levels.length)} of ${several(timesteps, 'timestep')}`
        : several(levels.length, 'sigma');
    rows.push(['noise levels', `${of}, ${Math.min(...levels)} to ${Math.max(...levels)}, ${model.distance}`]);
  }
  if (predictionType)
    rows.push([
      'predicts',
      predictionType === 'unknown'
        ? 'epsilon or v, measured when the model is opened unless --prediction says it'
        : predictionType,
    ]);
  for (const network of networks) {
    const [first = '', ...numbers] = networkText(network);
    rows.push(
      [network.part === '.' ? 'network' : network.part, first],
      ...numbers.map((text) => ['', `  ${text}`] as const),
    );
  }
  if (cost) {
    const shared =
      cost.sharedFlop === undefined
        ? ''
        : `, ${gigaflop(cost.sharedFlop)} of it once for all candidates of an image, level and noise`;
    rows.push(['per evaluation', `${gigaflop(cost.flop)}${shared}`]);
    if (model?.conditioning === 'class' && model.labels.length > 0) {
      const [levels, classes] = [model.levels.length, model.labels.length];
      rows.push([
        'per image',
        `${gigaflop(totalFlop(cost, { evaluations: levels * classes, views: levels }))} for all classes at all levels`,
      ]);
    }
    rows.push([
      cost.precision === 'f16' ? 'memory in f16' : 'memory',
      `${bytes(cost.weightBytes)} weights of the denoising network, ${bytes(cost.activationBytes)} or more per evaluation of a batch`,
    ]);
  }
  if (note !== undefined) rows.push(['note', note]);
  if (problems.length === 0) rows.push(['problems', 'none']);
  for (const problem of problems) rows.push(['problem', problem]);
  return rows.map(([what, value]) => `${what.padEnd(15)}${value}\n`).join('');
}

/** Describes a model folder on standard output. Returns the exit status: 0 in order, 3 not. */
async function describeFolder(
  { model, prediction, vae, lora, embedding, precision, reportFormat }: InfoSettings,
  { stdout, describe }: Surroundings,
): Promise<number> {
  const options = {
    ...(precision === 'f16' && { precision }),
    ...(prediction && { prediction }),
    ...(vae !== undefined && { vae }),
    ...(lora && { loras: lora }),
    ...(embedding && { embeddings: embedding }),
  };
  const description = await describe(
    await modelFolder(model),
    ...(Object.keys(options).length > 0 ? [options] : []),
  );
  await writeReport(stdout, reportFormat, asJson(description), infoText(description));
  return description.problems.length > 0 ? 3 : 0;
}

export const info: Subcommand<InfoSettings> = {
  name: 'info',
  summary: 'Say what a model folder holds, what an evaluation costs, and what is wrong with it.',
  operands: { '[MODEL]': 'the same as --model' },
  options: INFO,
  help: HELP,
  read: readSettings,
  run: describeFolder,
};
