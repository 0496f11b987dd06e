// Several options under one name, as if typed: the published schedules, and a quick one.

const staged = (nSamples: string, toKeep: string, loss: 'l1' | 'l2') =>
  ({ strategy: 'staged', nSamples, toKeep, loss }) as const;

/** Options of a preset, as they would be typed. */
export interface Preset {
  readonly strategy: 'sequential' | 'staged' | 'all';
  readonly nSamples?: string;
  readonly toKeep?: string;
  readonly confidence?: string;
  readonly timesteps?: string;
  readonly loss?: 'l1' | 'l2';
}

/**
 * Schedules of Li et al. (ICCV 2023) by data set, their DiT grid (every class at t = 2, 6, ..., 998 of 1,000),
 * and `fast`.
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
  'paper-dit': { strategy: 'all', timesteps: 'even:250', loss: 'l2' },
  fast: { strategy: 'sequential', confidence: '0.9', timesteps: 'even:50' },
};

/** What `--help` says of the presets. */
export const PRESET_HELP = Object.entries(PRESETS)
  .map(([name, preset]) => `  ${name.padEnd(16)} ${asTyped(preset)}`)
  .join('\n');

function asTyped({ strategy, nSamples, toKeep, confidence, timesteps, loss }: Preset): string {
  const parts = [`--strategy ${strategy}`];
  if (nSamples) parts.push(`--n-samples ${nSamples} --to-keep ${toKeep}`);
  if (confidence) parts.push(`--confidence ${confidence}`);
  if (timesteps) parts.push(`--timesteps ${timesteps}`);
  if (loss) parts.push(`--loss ${loss}`);
  return parts.join(' ');
}

/**
 * What was typed, with the preset's options for what was not. Under another strategy than the preset's, what
 * belongs to the preset's own is left out, but its grid of noise levels stays.
 */
export function withPreset(typed: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const preset = PRESETS[String(typed.preset)];
  if (!preset) return typed;
  const { nSamples, toKeep, confidence, timesteps, ...rest } = preset;
  const same = (typed.strategy ?? preset.strategy) === preset.strategy;
  const grid = nSamples && !same ? `even:${Math.max(...nSamples.split(',').map(Number))}` : timesteps;
  return {
    ...rest,
    ...(same && nSamples ? { nSamples, toKeep } : {}),
    ...(same && confidence ? { confidence } : {}),
    ...(grid && typed.sigmas === undefined ? { timesteps: grid } : {}),
    ...typed,
  };
}
