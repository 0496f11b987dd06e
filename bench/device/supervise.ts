// The run happens in a child process. If a driver crashes or hangs, only the child ends; a new child then continues with
// the next step.

import { spawn } from 'node:child_process';
import { nodeCommand } from '../node-command.ts';

/** The variable that marks a child and holds the time at which the run began (milliseconds of `Date.now`). */
const VARIABLE = 'DIFFCLASS_BENCH_BEGAN';

/** The variable that says how the child before this one ended. */
const ENDED = 'DIFFCLASS_BENCH_ENDED';

const MOST_CHILDREN = 6;

/** The message of a child at the start of each step. The parent kills the child after `milliseconds`. */
export interface StepStart {
  readonly step: string;
  readonly milliseconds: number;
  /** The file of results, if it is known already. */
  readonly out: string | undefined;
}

/** Returns the time at which the run began, in a child; undefined in the parent. */
export const childBegan = (): number | undefined => {
  const began = process.env[VARIABLE];
  return began === undefined ? undefined : Number(began);
};

/** Returns how the child before this one ended. */
export const howItEnded = (): string => process.env[ENDED] ?? 'the process ended in this step';

/** Sends the start of a step to the parent. */
export function announceStep(start: StepStart): void {
  try {
    process.send?.(start);
  } catch {
    // without a parent the run continues without supervision
  }
}

/**
 * Runs this program as a child with the same options. If the child dies, starts another one with `--resume`. Returns the
 * exit status; undefined if no child starts on this machine, so that the caller must run everything itself. `prefix` are
 * the arguments that the caller has removed from the command line.
 */
export async function supervise(prefix: readonly string[]): Promise<number | undefined> {
  const script = process.argv[1];
  if (script === undefined) return undefined;
  const began = Date.now();
  let childWorks = false;
  let out: string | undefined;
  let ended = '';
  for (let attempt = 0; attempt < MOST_CHILDREN; attempt++) {
    const [node, ...loaded] = nodeCommand();
    const args = [...loaded, ...process.execArgv, script, ...prefix, ...process.argv.slice(2)];
    if (attempt > 0) args.push('--resume', ...(out === undefined ? [] : ['--out', out]));
    const child = spawn(node, args, {
      stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
      env: { ...process.env, [VARIABLE]: String(began), ...(ended && { [ENDED]: ended }) },
    });
    let timer: NodeJS.Timeout | undefined;
    let during = 'start';
    let late: number | undefined;
    child.on('message', (message) => {
      const { step, milliseconds, out: file } = message as StepStart;
      out = file ?? out;
      childWorks = true;
      during = step;
      clearTimeout(timer);
      timer = setTimeout(() => {
        late = milliseconds;
        child.kill('SIGKILL');
      }, milliseconds);
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
    if (!childWorks) return undefined;
    ended = late
      ? `not done after ${(late / 1000).toFixed(0)} s, and the driver did not return from a call (compiling, or it hangs)`
      : `the process ended with ${signal ?? `status ${status}`}`;
    console.log(`bench device: ${during}: ${ended}; another process goes on with the next step`);
  }
  return 1;
}
