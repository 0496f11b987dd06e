// The end of the help of `classify`, which is the main command.

import { PRESET_HELP } from '../../options/presets.ts';

export const HELP = `
INPUT is an image file, a folder (with its sub-folders), a pattern in quotes, or - for paths on standard input, one per
line. A zip or tar archive, an IDX file (...-idx3-ubyte) or a CIFAR batch (.bin), with .gz or not, stands for the images in
it. Results are one line per image: text on a terminal, CSV if the name of --output ends in .csv, else JSON lines.

An output file is locked while it is written, and OUT.run.json next to it records the settings of the run.
--resume continues only with the same model, seed, candidates, strategy and noise levels: images with a result are skipped, failed
ones are tried again, and their earlier lines are dropped. In JSON a byte of a path that is not UTF-8 reads \\udcXX, as
in Python; in CSV and text it reads \\xXX, and so do control characters. A CSV cell that a spreadsheet would run as a
formula begins with an apostrophe.

Presets (the published schedules, and a quick one; explicit options override the preset):
${PRESET_HELP}

Exit status: 0 all classified, 1 some items failed, 2 usage, 3 model invalid, 4 no usable device,
130 interrupted.

Examples:
  diffclass-stream photos/
  diffclass-stream photos/ --model path/to/stable-diffusion --labels cat,dog,"guinea pig"
  diffclass-stream --output results.jsonl --resume 'photos/**/*.png'
  find photos -name '*.png' -print0 | diffclass-stream -0 --format csv -
`;
