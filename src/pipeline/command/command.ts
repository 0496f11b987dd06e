// The command line as people see it: its options and their help.

import { Command, Option } from 'commander';
import { DEFAULT_MODEL } from './modelchoice.ts';
import { LOG_LEVELS } from './settings.ts';

/** Where the command's own texts (help, version, faults) go. */
export interface Texts {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
}

const GROUPS: readonly (readonly [string, readonly Option[]])[] = [
  [
    'Model:',
    [
      new Option('--model <dir|name>', 'a model folder, or the name of a shipped model').default(
        DEFAULT_MODEL,
      ),
      new Option('--labels <names>', 'choose between these classes only: A,B,...'),
      new Option('--template <text>', 'prompts from labels, for text models: "a photo of a {}."'),
      new Option('--prompts <file>', 'candidates from a CSV file: prompt,classname,classidx'),
      new Option(
        '--image-size <n>',
        'side the image is resized and cropped to (pixel models have their own)',
      ),
    ],
  ],
  [
    'Deciding:',
    [
      new Option('--strategy <name>', 'how candidates are dropped: sequential, staged or all').default(
        'sequential',
      ),
      new Option('--confidence <p>', 'sequential: decided when the best is at this confidence (0.99)'),
      new Option('--budget <n>', 'most evaluations for an image'),
      new Option('--n-samples <list>', 'staged: noise levels of each stage, such as 50,500'),
      new Option('--to-keep <list>', 'staged: candidates kept after each stage, such as 5,1'),
      new Option('--timesteps <grid>', 'noise levels of a discrete model: even:N'),
      new Option('--sigmas <grid>', 'noise levels of a continuous model: linspace:A:B:N'),
      new Option('--loss <name>', 'distance of an evaluation: l2, l1 or huber'),
      new Option(
        '--weighting <name|file>',
        'weight of a noise level: uniform, rdc-code, lognormal, elbo, or a file',
      ),
      new Option('--seed <n>', 'seed of the noise').default('0'),
      new Option('--noise <file>', 'noise from a safetensors file instead: tensor "noise" [n, c, h, w]'),
    ],
  ],
  [
    'Output:',
    [
      new Option('-o, --output <file>', 'where results go; - is standard output').default('-'),
      new Option('--format <name>', 'jsonl or csv').default('jsonl'),
      new Option('--top-k <k>', 'classes listed with a result').default('5'),
      new Option('--errors <file>', 'also write every single evaluation there, as JSON lines'),
      new Option('--resume', 'skip what --output already holds').default(false),
      new Option('-q, --quiet', 'no progress, errors only').default(false),
      new Option('--log-level <level>', `what goes to standard error: ${LOG_LEVELS.join(', ')}`).default(
        'info',
      ),
    ],
  ],
  [
    'Running:',
    [
      new Option('-0, --null', 'paths on standard input end in NUL').default(false),
      new Option('--batch <n>', 'evaluations of a dispatch').default('auto'),
      new Option('--concurrency <n>', 'images in flight').default('auto'),
    ],
  ],
];

const AFTER = `
INPUT is an image file, a folder (with all beneath it), a pattern in quotes, or - for paths on standard input.

Exit status: 0 all classified, 1 some items failed, 2 usage, 3 model invalid, 4 no usable device,
130 interrupted.

Examples:
  diffclass-stream photos/
  diffclass-stream --output results.jsonl --resume 'photos/**/*.png'
  find photos -name '*.png' -print0 | diffclass-stream -0 --format csv -
`;

/** The command without an action: it throws `CommanderError` instead of ending the process. */
export function createCommand(version: string, texts: Texts): Command {
  const command = new Command('diffclass-stream')
    .description('Classify images with a diffusion model: images in, one line each out.')
    .usage('[classify] [options] INPUT...')
    .argument('[INPUT...]', 'image files, folders, patterns or -')
    .version(version)
    .exitOverride()
    .showHelpAfterError('(diffclass-stream --help lists the options)')
    .configureOutput({ writeOut: texts.out, writeErr: texts.err })
    .addHelpText('after', AFTER);
  for (const [group, options] of GROUPS)
    for (const option of options) command.addOption(option.helpGroup(group));
  return command;
}
