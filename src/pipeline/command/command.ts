// The commands as people see them: their options and their help.

import type { Command } from 'commander';
import { PRESET_HELP } from './options/presets.ts';
import { addOptions } from './options/table.ts';
import { newCommand, type Texts } from './shared/subcommand.ts';
import { CLASSIFY } from './subcommands/classify/settings.ts';

const AFTER = `
INPUT is an image file, a folder (with all beneath it), a pattern in quotes, or - for paths on standard input, one per
line. A zip or tar archive, an IDX file (...-idx3-ubyte) or a CIFAR batch (.bin), with .gz or not, stands for the images in
it. Results are one line per image: text on a terminal, CSV if the name of --output ends in .csv, else JSON lines.

An output file is locked while it is written, and OUT.run.json next to it says what the run was asked for. --resume
goes on only with the same model, seed, candidates, strategy and noise levels: images with a result are skipped, failed
ones are tried again, and their earlier lines are dropped. In JSON a byte of a path that is not UTF-8 reads \\udcXX, as
in Python; in CSV and text it reads \\xXX, and so do control characters. A CSV cell that a spreadsheet would run as a
formula begins with an apostrophe.

Presets (the published schedules, and a quick one; explicit options override the preset):
${PRESET_HELP}

Other commands, each with a --help of its own:
  doctor           lists the devices, checks everything that a run needs, and helps if it can
  info MODEL       says what a model folder holds, and what is wrong with it
  convert FILE OUT makes a model folder of a published EDM pickle
  match PAIRS.csv  scores which captions belong to which images
  calibrate SET    fits the temperature of a model's probabilities to labelled images
  optimal SET OUT  makes a model folder of labelled images: their optimal denoiser
  attack INPUT...  makes adversarial examples
  evaluate SET     measures clean and robust accuracy on labelled images
  purify INPUT...  removes adversarial perturbations from images

Exit status: 0 all classified, 1 some items failed, 2 usage, 3 model invalid, 4 no usable device,
130 interrupted.

Examples:
  diffclass-stream photos/
  diffclass-stream photos/ --model path/to/stable-diffusion --labels cat,dog,"guinea pig"
  diffclass-stream --output results.jsonl --resume 'photos/**/*.png'
  find photos -name '*.png' -print0 | diffclass-stream -0 --format csv -
`;

/** The main command, `classify`. */
export const createCommand = (version: string, texts: Texts): Command =>
  addOptions(
    newCommand('diffclass-stream', texts)
      .description('Classify images with a diffusion model: images in, one line each out.')
      .usage('[classify] [options] INPUT...')
      .argument('[INPUT...]', 'image files, folders, patterns or -')
      .version(version)
      .addHelpText('after', AFTER),
    CLASSIFY,
  );
