// Presets: names for several options at once. There is one for each published schedule, and a quick one.

import type { OptionValues } from '../../option.ts';

/** The texts of options by their names. */
type Texts = Readonly<Record<string, string>>;

/** A preset: its strategy, options for that strategy (`own`), and options for any strategy (`shared`). */
interface Preset {
  readonly strategy: string;
  readonly own: Texts;
  /** Options instead of `own` if another strategy is given. */
  readonly otherwise?: Texts;
  readonly shared: Texts;
}

/** Makes the preset of a staged schedule. Under another strategy, the noise levels of its last stage remain. */
const staged = (nSamples: string, toKeep: string, loss: 'l1' | 'l2'): Preset => ({
  strategy: 'staged',
  own: { nSamples, toKeep },
  otherwise: { timesteps: `even:${nSamples.split(',').at(-1)}` },
  shared: { loss },
});

/**
 * The schedules of Li et al. (ICCV 2023) by data set; their DiT grid (every class at t = 2, 6, ..., 998 of
 * 1,000); and `fast`.
 */
export const PRESETS: Readonly<Record<string, Preset>> = {
  'paper-cifar10': staged('50,500', '5,1', 'l1'),
  'paper-cifar100': staged('20,50,100,500', '20,10,5,1', 'l1'),
  'paper-stl10': staged('100,500', '5,1', 'l1'),
  'paper-pets': staged('25,250', '5,1', 'l1'),
  'paper-flowers': staged('20,50,100,500', '20,10,5,1', 'l1'),
  'paper-food101': staged('20,50,100,500', '20,10,5,1', 'l2'),
  'paper-aircraft': staged('20,50,100,500', '20,10,5,1', 'l2'),
  'paper-objectnet': staged('50,100,500,1000', '25,10,5,1', 'l2'),
  'paper-imagenet': staged('50,100,500,1000', '500,50,10,1', 'l2'),
  'paper-dit': { strategy: 'all', own: {}, shared: { timesteps: 'even:250', loss: 'l2' } },
  fast: { strategy: 'sequential', own: { confidence: '0.9' }, shared: { timesteps: 'even:50' } },
};

const kebabCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** The lines of `--help` about presets. */
export const PRESET_HELP = Object.entries(PRESETS)
  .map(([name, { strategy, own, shared }]) => {
    const options = Object.entries({ strategy, ...own, ...shared });
    const texts = options.map(([option, text]) => `--${kebabCase(option)} ${text}`);
    return `  ${name.padEnd(16)} ${texts.join(' ')}`;
  })
  .join('\n');

/** Adds the options of the preset in `given`, if there is one, to those that were given, which override it. */
export function withPreset(given: OptionValues): OptionValues {
  const preset = PRESETS[String(given.preset)];
  if (!preset) return given;
  const { strategy, own, otherwise, shared } = preset;
  const { timesteps, ...options }: Partial<Texts> = {
    strategy,
    ...shared,
    ...((given.strategy ?? strategy) === strategy ? own : otherwise),
  };
  const grid = timesteps === undefined || given.sigmas !== undefined ? {} : { timesteps };
  return { ...options, ...grid, ...given };
}
