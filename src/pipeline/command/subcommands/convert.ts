// `convert`: makes a model folder of a published EDM pickle, or of a state dict. Nothing in the file is executed.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { UsageError } from '../../../errors.ts';
import { convertEdm } from '../../../graph/node/convert-edm.ts';
import type { OptionValues } from '../../option.ts';
import { type OptionName, readOptions } from '../options/table.ts';
import { checkOutputFolder } from '../shared/output-checks.ts';
import { short } from '../shared/progress.ts';
import type { Subcommand, Surroundings } from '../shared/subcommand.ts';

const CONVERT = ['config', 'labels'] as const satisfies readonly OptionName[];

/** A checked command line of `convert`. */
type ConvertSettings = ReturnType<typeof readSettings>;

const HELP = `
FILE is one of EDM's pickles (its network is the one under "ema"), or a state dict of EDMPrecond that torch.save wrote
(.pt). It is read as data: tensors and the arguments of the network; a file that asks for anything else is refused. A
state dict does not say how its network was built; that is inferred from names and shapes, or read from --config.

OUT becomes a model folder: config.json and model.safetensors.

Examples:
  diffclass-stream convert edm-cifar10-32x32-cond-vp.pkl edm-cifar10 --labels airplane,automobile,bird,...
  diffclass-stream convert edm-cifar10-32x32-uncond-vp.pkl edm-cifar10/uncond
`;

const readSettings = ([file = '', out = '']: readonly string[], typed: OptionValues) => {
  return { ...readOptions(CONVERT, typed), file, out };
};

/**
 * Converts what the settings name. Returns 0.
 *
 * @throws UsageError if the folder holds a model already or cannot be written, ModelError if the file cannot be converted.
 */
async function convertFile(
  { file, out, config, labels }: ConvertSettings,
  { reporter }: Pick<Surroundings, 'reporter'>,
): Promise<number> {
  for (const name of ['model.safetensors', 'config.json']) {
    if (existsSync(join(out, name)))
      throw new UsageError(`${out}: has a ${name} already; name another folder`);
  }
  await checkOutputFolder('OUT', out);
  const { tensors, parameters } = await convertEdm(file, out, {
    ...(config === undefined ? {} : { config }),
    ...(labels ? { labels } : {}),
  });
  reporter.log('info', `${short(tensors)} tensors, ${short(parameters)} numbers, in ${out}`);
  return 0;
}

export const convert: Subcommand<ConvertSettings> = {
  name: 'convert',
  summary: 'Make a model folder of a published EDM pickle, without executing anything in it.',
  operands: { '<FILE>': 'a .pkl or .pt', '<OUT>': 'the folder to make' },
  options: CONVERT,
  help: HELP,
  read: readSettings,
  run: convertFile,
};
