// Detects that other processes, or another guest of the same host, used the processors during a sample.

import { existsSync, readFileSync } from 'node:fs';

const STAT = '/proc/stat';

/** Milliseconds per tick of /proc/stat. */
const TICK_MS = 10;

/** Returns the processor time that all processes have used, from the text of /proc/stat; time stolen by the host counts. */
export function usedMs(text: string): number {
  const [, user, nice, system, , , irq, softirq, steal = '0'] = text.split('\n')[0]!.trim().split(/\s+/);
  return TICK_MS * [user, nice, system, irq, softirq, steal].reduce((sum, ticks) => sum + Number(ticks), 0);
}

/** Returns the processor time that all processes have used so far; undefined on a system that does not say. */
export const totalMs = (): number | undefined =>
  existsSync(STAT) ? usedMs(readFileSync(STAT, 'utf8')) : undefined;

/** Ticks are counted per processor, so a short sample may seem to have a few more. */
const INEXACT_MS = 3 * TICK_MS;

/** Returns whether others used more than a quarter of a processor, given what they used during some milliseconds. */
export const isDisturbed = (othersMs: number, elapsedMs: number): boolean =>
  othersMs > elapsedMs / 4 + INEXACT_MS;
