// Times the same shapes and the same UNet in PyTorch. Runs bench/device.py, which prints one result per line, so that the
// results so far are kept if it is killed at the end of its time.

import { spawn } from 'node:child_process';
import { join } from 'node:path';
import type { BenchCase } from '../../src/bench/case.ts';
import type { Session, Step } from './session.ts';

export interface TorchJob {
  readonly entries: readonly BenchCase[];
  readonly unet: readonly number[];
  readonly compile: boolean;
}

export interface TorchResults {
  info?: unknown;
  readonly ops: { readonly id: string; readonly ms: Readonly<Record<string, number | string>> }[];
  readonly unets: Record<string, unknown>[];
  readonly notes: unknown[];
  stderr?: string;
  exit?: string;
}

/** Runs bench/device.py within the time of the step. @throws Error if there is no --torch. */
export async function runTorch(session: Session, step: Step, job: TorchJob): Promise<TorchResults> {
  const { torch, root } = session.options;
  if (!torch) throw new Error('expected --torch with the path of a Python that has PyTorch, got none');
  const results: TorchResults = { ops: [], unets: [], notes: [] };
  const seconds = Math.max(5, step.left() / 1000 - 3);
  const child = spawn(torch, [join(root, 'bench', 'device.py')], { stdio: ['pipe', 'pipe', 'pipe'] });
  let errors = '';
  child.stderr.on('data', (data: Buffer) => {
    errors = (errors + data.toString()).slice(-4000);
  });
  child.stdin.on('error', () => {}); // if the child ended early, its own output has the reason
  child.stdin.end(
    JSON.stringify({
      budget: seconds,
      entries: job.entries.flatMap(({ op, name, torch: shape }) =>
        shape ? [{ id: `${op} ${name}`, ...shape }] : [],
      ),
      unet: job.unet,
      compile: job.compile,
    }),
  );
  let rest = '';
  let kept = performance.now();
  child.stdout.on('data', (data: Buffer) => {
    const lines = (rest + data.toString()).split('\n');
    rest = lines.pop()!;
    for (const line of lines) {
      try {
        take(JSON.parse(line) as Record<string, unknown>);
      } catch {
        results.notes.push(line.slice(0, 300));
      }
    }
    if (performance.now() - kept > 5000) {
      kept = performance.now();
      step.keep(results);
    }
  });
  const take = ({ section, ...values }: Record<string, unknown>): void => {
    if (section === 'op') results.ops.push(values as unknown as TorchResults['ops'][number]);
    else if (section === 'unet') results.unets.push(values);
    else if (section === 'info') results.info = values;
    else results.notes.push(values);
    if (section === 'unet')
      step.say(
        `PyTorch UNet ${values.mode}, batch ${values.batch}: ${typeof values.ms === 'number' ? `${values.ms.toFixed(2)} ms` : values.error}`,
      );
    if (section === 'info') step.say(`PyTorch ${values.torch} on ${values.device}`);
  };
  const kill = setTimeout(() => child.kill('SIGKILL'), 1000 * (seconds + 2));
  results.exit = await new Promise<string>((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.on('close', (code, signal) => resolve(signal ? `killed by ${signal}` : `status ${code}`));
  });
  clearTimeout(kill);
  if (results.exit !== 'status 0') results.stderr = errors;
  step.say(`${results.ops.length} shapes and ${results.unets.length} UNet runs in PyTorch, ${results.exit}`);
  return results;
}
