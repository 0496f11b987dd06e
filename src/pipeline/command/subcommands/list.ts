// All subcommands, in the order of the help; the first one is the main command.

import type { Subcommand } from '../shared/subcommand.ts';
import { attack } from './attack.ts';
import { bench } from './bench/bench.ts';
import { calibrate } from './calibrate/calibrate.ts';
import { classify } from './classify/classify.ts';
import { convert } from './convert.ts';
import { doctor } from './doctor/doctor.ts';
import { evaluate } from './evaluate/evaluate.ts';
import { info } from './info.ts';
import { match } from './match/match.ts';
import { optimal } from './optimal.ts';
import { purify } from './purify/purify.ts';

export const SUBCOMMANDS: readonly Subcommand[] = [
  classify,
  doctor,
  info,
  convert,
  match,
  calibrate,
  optimal,
  attack,
  evaluate,
  purify,
  bench,
];
