// Logs messages, and shows the progress of a run: on a terminal in one line that renews itself, elsewhere in a line every 10 s.

import type { CompileProgress } from '../../../kernels/device/device.ts';
import type { TuneProgress } from '../../../kernels/device/tuned-device.ts';
import { printable } from '../../escaping.ts';
import type { Progress } from '../../types.ts';
import { LOG_LEVELS, type LogLevel } from '../options/output-options.ts';

/** Milliseconds between two renewals of the line on a terminal, and between two lines elsewhere. */
const RENEWAL = { terminal: 100, elsewhere: 10_000 };

/** The same while shaders are compiled or measured; progress is shown after `patience` milliseconds. */
const OPENING = { terminal: 100, elsewhere: 5000, patience: 1000 };

/** Seconds over which the rate is averaged. */
const WINDOW = 20;

/** The part of standard error that a reporter needs. */
export interface ErrorOutput {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

/** Logs and progress of a run. */
export interface Reporter {
  log(level: Exclude<LogLevel, 'silent'>, text: string): void;
  /** Shows progress. `total` is the number of images, once it is known; `skipped` of them were done before the run. */
  progress(now: Progress, skipped: number, total: number | undefined): void;
  /** Shows how many pipelines are compiled, once that takes longer than a second. */
  compiling(progress: CompileProgress): void;
  /** Shows how far the measurement of kernels is, once it takes longer than a second. */
  tuning(progress: TuneProgress): void;
  /** Ends the line on a terminal. */
  clear(): void;
}

/** Formats seconds as a person writes them: 4.2 s, 42 s, 3:07, 2:15:00. */
export function duration(seconds: number): string {
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (n: number) => String(n).padStart(2, '0');
  const minutes = Math.floor(whole / 60);
  const rest = two(whole % 60);
  return minutes < 60 ? `${minutes}:${rest}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${rest}`;
}

/** Formats a number with three significant digits and separated thousands. */
export function short(value: number): string {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return value.toLocaleString('en-US', { maximumFractionDigits: digits });
}

/** Formats a number with its noun: 1 image, 2 images. */
export const several = (count: number, noun: string): string =>
  `${short(count)} ${noun}${count === 1 ? '' : 's'}`;

/** Formats floating-point operations with three significant digits: 0.147 GFLOP. */
export const gigaflop = (flop: number): string =>
  `${(flop / 1e9).toLocaleString('en-US', { maximumSignificantDigits: 3 })} GFLOP`;

/** Formats bytes as a person writes them: 512 B, 1.44 MB, 3.44 GB. */
export function bytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, count)) / 3));
  return `${short(count / 1000 ** power)} ${units[power]}`;
}

/** Formats one line of progress. */
export function progressLine(
  now: Progress,
  rate: number,
  skipped: number,
  total: number | undefined,
  noun = 'images',
): string {
  const left = total === undefined ? undefined : Math.max(0, total - skipped - now.images);
  const parts = [
    `${short(skipped + now.images)}${total === undefined ? '' : ` of ${short(total)}`} ${noun}`,
    `${short(rate)} ${noun}/s`,
  ];
  if (left !== undefined && rate > 0) parts.push(`ETA ${duration(left / rate)}`);
  if (now.failures > 0) parts.push(`${short(now.failures)} failed`);
  return parts.join(', ');
}

/** Makes a function that returns the rate over the last seconds, or over the whole run if that is shorter. */
function movingRate(): (now: Progress) => number {
  const samples: Progress[] = [];
  return (now) => {
    const last = samples.at(-1);
    if (last === undefined || now.seconds - last.seconds >= 1) samples.push(now);
    while (samples.length > 2 && now.seconds - samples[1]!.seconds > WINDOW) samples.shift();
    const first = samples[0]!;
    const seconds = now.seconds - first.seconds;
    return seconds >= 2 ? (now.images - first.images) / seconds : now.imagesPerSecond;
  };
}

/** How a reporter writes. */
export interface ReporterOptions {
  /** Milliseconds on any clock. */
  readonly now?: () => number;
  /** What progress counts: images. */
  readonly noun?: string | undefined;
  /** Whether progress is one line that renews itself, as a terminal can show it. */
  readonly renewing?: boolean;
}

/**
 * Makes a reporter to standard error that logs what `level` allows; progress belongs to `info`. Every message is one
 * line, in which control characters are escaped.
 */
export function createReporter(
  output: ErrorOutput,
  level: LogLevel,
  { now = Date.now, noun = 'images', renewing: terminal = output.isTTY === true }: ReporterOptions = {},
): Reporter {
  const loud = LOG_LEVELS.indexOf(level);
  const rate = movingRate();
  const began = now();
  let renewed = terminal ? 0 : began;
  let openingSince: number | undefined;
  let openingShown = Number.NEGATIVE_INFINITY;
  let drawn = false;
  const draw = (line: string) => {
    if (!terminal) output.write(`diffclass-stream: ${line}\n`);
    else output.write(`\r${line.slice(0, (output.columns ?? 80) - 1)}\x1b[K`);
    drawn = terminal;
  };
  const clear = () => {
    if (drawn) output.write('\r\x1b[K');
    drawn = false;
  };
  /** Shows progress of opening a model, once a part of it takes longer than a second. */
  const opening = ({ done, total }: CompileProgress, line: string) => {
    const time = now();
    if (LOG_LEVELS.indexOf('info') > loud) return;
    openingSince ??= time;
    if (done === total) {
      openingSince = undefined;
      clear();
    } else if (
      time - openingSince >= OPENING.patience &&
      time - openingShown >= (terminal ? OPENING.terminal : OPENING.elsewhere)
    ) {
      openingShown = time;
      draw(line);
    }
  };
  return {
    clear,
    log(of, text) {
      if (LOG_LEVELS.indexOf(of) > loud) return;
      clear();
      output.write(`diffclass-stream: ${printable(text)}\n`);
    },
    progress(state, skipped, total) {
      const perSecond = rate(state);
      const time = now();
      if (LOG_LEVELS.indexOf('info') > loud) return;
      if (time - renewed < (terminal ? RENEWAL.terminal : RENEWAL.elsewhere)) return;
      renewed = time;
      draw(progressLine(state, perSecond, skipped, total, noun));
    },
    compiling(state) {
      opening(state, `compiling shaders, ${state.done} of ${state.total} (kept for the next run)`);
    },
    tuning(state) {
      const share = `${state.done} of ${state.total}`;
      opening(state, `measuring kernels, ${share} (kept for the next run; --no-tune skips this)`);
    },
  };
}
