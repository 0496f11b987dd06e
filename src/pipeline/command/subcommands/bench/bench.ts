// `bench`: times the kernels, or one evaluation of a model, on this device, and compares two reports.

import { UsageError } from '../../../../errors.ts';
import { longFlag, type OptionValues } from '../../../option.ts';
import { OPTIONS, type OptionName, readOptions } from '../../options/table.ts';
import type { Subcommand, Surroundings } from '../../shared/subcommand.ts';
import { benchCompare, COMPARE, type CompareSettings } from './compare.ts';
import { benchKernels, CASE_OPTIONS, KERNELS, type KernelSettings } from './kernels.ts';
import { benchUnet, UNET, type UnetSettings } from './unet.ts';

type BenchSettings =
  | { readonly what: 'kernels'; readonly settings: KernelSettings }
  | { readonly what: 'unet'; readonly settings: UnetSettings }
  | { readonly what: 'compare'; readonly settings: CompareSettings };

/** The benchmarks with their options. */
const BENCHMARKS = { kernels: KERNELS, unet: UNET, compare: COMPARE } as const satisfies Record<
  string,
  readonly OptionName[]
>;

const BENCH = [
  'ops',
  'match',
  'families',
  'repetitions',
  'list',
  'launches',
  'json',
  'shape',
  ...CASE_OPTIONS,
  'model',
  'batch',
  'effect',
  'failOn',
] as const satisfies readonly OptionName[];

const HELP = `
  bench [kernels]   times every kernel: milliseconds, their quartiles, and rates with their share of the peaks that are
                    measured in the same run
  bench unet        times one evaluation of --model: where its time goes, and how long the device is idle in a stream of
                    batches of --batch noised images (128)
  bench compare OLD.json NEW.json
                    lists what is significantly slower or faster in the new report

GFLOP/s are by the clock, as the milliseconds are. On a software adapter, which shares the processor with other programs,
"by processor" is the rate that the same processor time would give on all cores; * marks times that other programs
disturbed. Rates count the operations of the definition: a convolution by Winograd's method does fewer, so that its rate
may exceed the peak.

Exit status: 0 all was timed, 1 a case could not run or --fail-on says so, 2 usage, 3 model invalid, 4 no usable device.

Examples:
  diffclass-stream bench --op conv2d,linear --json before.json
  diffclass-stream bench --op conv2d --shape 8x128x32x32 --channels 256 --kernel 3
  diffclass-stream bench --op attention --family plain,tile
  diffclass-stream bench unet --model cifar-10 --batch 64
  diffclass-stream bench compare before.json after.json --fail-on slower
`;

/** Whether a text names a benchmark. */
const isBenchmark = (what: string): what is keyof typeof BENCHMARKS => what in BENCHMARKS;

function readSettings([what = 'kernels', ...reports]: readonly string[], typed: OptionValues): BenchSettings {
  if (!isBenchmark(what))
    throw new UsageError(`bench: expected ${Object.keys(BENCHMARKS).join(', ')}, got "${what}"`);
  checkOptions(what, typed);
  const [before, after, ...more] = reports;
  if (what === 'compare') {
    if (before === undefined || after === undefined || more.length > 0)
      throw new UsageError(
        `bench compare: expected two reports, the old and the new one, got ${reports.length}`,
      );
    return { what, settings: { ...readOptions(COMPARE, typed), before, after } };
  }
  if (before !== undefined)
    throw new UsageError(`bench ${what}: expected no further argument, got "${before}"`);
  return what === 'kernels'
    ? { what, settings: readOptions(KERNELS, typed) }
    : { what, settings: readOptions(UNET, typed) };
}

/** @throws UsageError if an option was given that belongs to another benchmark. */
function checkOptions(what: keyof typeof BENCHMARKS, typed: OptionValues): void {
  const own: readonly OptionName[] = BENCHMARKS[what];
  const given = readGiven(typed);
  const stray = BENCH.find((name) => given.has(longFlag(OPTIONS[name])) && !own.includes(name));
  if (stray === undefined) return;
  const owners = Object.entries(BENCHMARKS).filter(([, names]) =>
    (names as readonly OptionName[]).includes(stray),
  );
  throw new UsageError(
    `${longFlag(OPTIONS[stray])}: belongs to bench ${owners.map(([name]) => name).join(', ')}, not to bench ${what}`,
  );
}

/** Returns the flags that were given. Commander names values in camel case: `failOn` is of `--fail-on`. */
const readGiven = (typed: OptionValues): ReadonlySet<string> =>
  new Set(
    Object.keys(typed)
      .filter((name) => typed[name] !== undefined)
      .map((name) => `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`),
  );

const runBenchmark = (bench: BenchSettings, surroundings: Surroundings): Promise<number> => {
  switch (bench.what) {
    case 'kernels':
      return benchKernels(bench.settings, surroundings);
    case 'unet':
      return benchUnet(bench.settings, surroundings);
    case 'compare':
      return benchCompare(bench.settings, surroundings);
  }
};

export const bench: Subcommand<BenchSettings> = {
  name: 'bench',
  summary: 'Time the kernels or one evaluation of a model on this device, and compare two reports.',
  operands: {
    '[WHAT]': 'kernels (the default), unet or compare',
    '[REPORT...]': 'compare: the old and the new report',
  },
  usage: '[kernels|unet] [options]\n       diffclass-stream bench compare OLD.json NEW.json [options]',
  options: BENCH,
  help: HELP,
  usesDevice: true,
  read: readSettings,
  run: runBenchmark,
};
