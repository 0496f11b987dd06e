// The run happens in a child of the process that was started. A driver that crashes or hangs takes the child with it;
// a new child then goes on with the next step.

import { spawn } from 'node:child_process';

/** Marks a child, and tells it when the run began (milliseconds of `Date.now`). */
const VARIABLE = 'DIFFCLASS_BENCH_BEGAN';

const MOST_CHILDREN = 6;

/** What a child tells at the start of each step: the milliseconds after which it is to be killed. */
export interface StepStart {
  readonly step: string;
  readonly milliseconds: number;
  /** Where the results are, once that is known. */
  readonly out: string | undefined;
}

/** When the run began, in a child; undefined in the process that was started. */
export const childBegan = (): number | undefined => {
  const began = process.env[VARIABLE];
  return began === undefined ? undefined : Number(began);
};

/** Tells the parent that a step starts. */
export function tellStart(start: StepStart): void {
  try {
    process.send?.(start);
  } catch {
    // without a parent the run goes on unwatched
  }
}

/**
 * Runs the program again as a child with the same options, and with `--resume` as long as it dies. Returns its exit
 * status; undefined if no child can be started here, so that the caller runs everything itself. `prefix` are arguments
 * that the caller took from the command line before.
 */
export async function supervise(prefix: readonly string[]): Promise<number | undefined> {
  const script = process.argv[1];
  if (script === undefined) return undefined;
  const began = Date.now();
  let greeted = false;
  let out: string | undefined;
  for (let attempt = 0; attempt < MOST_CHILDREN; attempt++) {
    const args = [...process.execArgv, script, ...prefix, ...process.argv.slice(2)];
    if (attempt > 0) args.push('--resume', ...(out === undefined ? [] : ['--out', out]));
    const child = spawn(process.execPath, args, {
      stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
      env: { ...process.env, [VARIABLE]: String(began) },
    });
    let timer: NodeJS.Timeout | undefined;
    let during = 'start';
    child.on('message', (message) => {
      const { step, milliseconds, out: file } = message as StepStart;
      out = file ?? out;
      greeted = true;
      during = step;
      clearTimeout(timer);
      timer = setTimeout(() => child.kill('SIGKILL'), milliseconds);
    });
    let stopped = false;
    const stop = (signal: NodeJS.Signals) => (): void => {
      stopped = true;
      child.kill(signal);
    };
    const [onTerm, onInt] = [stop('SIGTERM'), stop('SIGINT')];
    process.on('SIGTERM', onTerm);
    process.on('SIGINT', onInt);
    const [status, signal] = await new Promise<readonly [number | null, NodeJS.Signals | null]>((resolve) => {
      child.on('error', () => resolve([1, null]));
      child.on('exit', (code, by) => resolve([code, by]));
    });
    clearTimeout(timer);
    process.off('SIGTERM', onTerm);
    process.off('SIGINT', onInt);
    if (status === 0 || status === 2 || stopped) return status ?? 1;
    if (!greeted) return undefined;
    console.log(`bench device: the process ended in step ${during} (${signal ?? `status ${status}`})`);
  }
  return 1;
}
