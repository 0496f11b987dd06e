import { readFileSync } from 'node:fs';

/**
 * Returns the resident memory of a process in MiB: `VmRSS` is what it has now, `VmHWM` the most that it had. Returns NaN
 * on systems other than Linux, and if the process has ended.
 */
export function residentMiB(key: 'VmRSS' | 'VmHWM', pid: number | 'self' = 'self'): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return Number(new RegExp(`${key}:\\s+(\\d+) kB`).exec(status)?.[1]) / 1024;
  } catch {
    return Number.NaN;
  }
}
