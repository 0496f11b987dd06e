// The same shapes and the same UNet in PyTorch, in a process of its own (bench/device.py) that tells its results line
// by line: one that is killed when its time is over keeps what it has measured.

import { spawn } from 'node:child_process';
import { join } from 'node:path';
import type { Entry } from '../entries.ts';
import type { Session, Step } from './session.ts';

export interface TorchJob {
  readonly entries: readonly Entry[];
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

export async function runTorch(session: Session, step: Step, job: TorchJob): Promise<TorchResults> {
  const { torch, root } = session.options;
  if (!torch) throw new Error('no --torch was given');
  const results: TorchResults = { ops: [], unets: [], notes: [] };
  const seconds = Math.max(5, step.left() / 1000 - 3);
  const child = spawn(torch, [join(root, 'bench', 'device.py')], { stdio: ['pipe', 'pipe', 'pipe'] });
  let errors = '';
  child.stderr.on('data', (data: Buffer) => {
    errors = (errors + data.toString()).slice(-4000);
  });
  child.stdin.on('error', () => {}); // a child that ended early tells why in its own output
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
  const take = ({ section, ...facts }: Record<string, unknown>): void => {
    if (section === 'op') results.ops.push(facts as unknown as TorchResults['ops'][number]);
    else if (section === 'unet') results.unets.push(facts);
    else if (section === 'info') results.info = facts;
    else results.notes.push(facts);
    if (section === 'unet')
      step.say(
        `PyTorch UNet ${facts.mode}, batch ${facts.batch}: ${typeof facts.ms === 'number' ? `${facts.ms.toFixed(2)} ms` : facts.error}`,
      );
    if (section === 'info') step.say(`PyTorch ${facts.torch} on ${facts.device}`);
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
