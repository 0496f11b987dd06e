// Formats results for a person: one line per image, in columns.

import { escaped } from '../../../escaping.ts';
import { type Classified, type ItemFailure, isFailure } from '../../../types.ts';
import type { LineOptions } from '../../shared/result-lines.ts';
import { cutEnd, cutStart, displayWidth, fit } from './display-width.ts';

/** What the columns depend on. */
export interface TextLayout extends LineOptions {
  /** All labels, for the width of their column. */
  readonly labels: readonly string[];
  /** Columns of the terminal; without it lines are not cut. */
  readonly width?: number | undefined;
}

/** Columns of a percentage with its mark, `100.0 %?`. */
const PERCENT = 8;

/** Columns that a path keeps however narrow the terminal is. */
const LEAST_PATH = 12;

const percent = (probability: number) => `${(100 * probability).toFixed(1)} %`;

/**
 * Returns a function that makes the line of a result: label, probability (with `?` if the budget ended before the
 * decision), runner-up, `(unfamiliar)` if the image is unlike those the model was trained on, and path; or `failed`, path
 * and reason. Lines are cut to the width: paths at their beginning, labels at their end.
 */
export function textLines({ labels, width, energy, timings }: TextLayout) {
  const widest = Math.max('failed'.length, ...labels.map((label) => displayWidth(escaped(label))));
  const label = width === undefined ? widest : Math.min(widest, Math.max(8, Math.floor(width / 4)));
  const room = width ?? Number.POSITIVE_INFINITY;
  const failed = ({ path, error }: ItemFailure) => {
    const start = `${fit('failed', label)}  `;
    const reason = `: ${escaped(error.message)}`;
    const left = Math.max(LEAST_PATH, room - displayWidth(start) - displayWidth(reason));
    return cutEnd(`${start}${cutStart(escaped(path), left)}${reason}`, room);
  };
  const classified = (result: Classified) => {
    const [, second] = result.top;
    const best = `${percent(result.probability)}${result.decided ? ' ' : '?'}`.padStart(PERCENT);
    const rival = second ? `or ${cutEnd(escaped(second.label), label)} ${percent(second.probability)}` : '';
    const columns = [
      fit(escaped(result.label), label),
      best,
      fit(rival, 'or '.length + label + ' 50.0 %'.length),
    ];
    if (energy) columns.push(`energy ${(result.energy ?? Number.NaN).toFixed(1)}`);
    if (timings) columns.push(`${result.seconds.toFixed(2)} s`);
    const start = `${columns.join('  ')}  ${result.unfamiliar ? '(unfamiliar) ' : ''}`;
    const left = Math.max(LEAST_PATH, room - displayWidth(start));
    return cutEnd(start + cutStart(escaped(result.path), left), room);
  };
  return (result: Classified | ItemFailure): string =>
    `${isFailure(result) ? failed(result) : classified(result)}\n`;
}
