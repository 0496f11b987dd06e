// A peer in a process of its own. If it crashes, hangs or cannot do a case, only its own results are missing.

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { Reply, Request } from './protocol.ts';

export interface PeerProcess {
  readonly description: string;
  /** @throws Error with the peer's reason; also if it ends, or does not reply in time and is therefore ended. */
  request(message: Request): Promise<Reply>;
  isRunning(): boolean;
  end(): void;
}

/** Loading a library, and compiling the shaders of a case, may take a minute on a software adapter. */
const LIMIT_MS = 300_000;

/**
 * Starts a peer's program and waits until it is loaded.
 * @throws Error with the reason if it cannot be loaded.
 */
export async function startPeer(command: readonly string[], limitMs = LIMIT_MS): Promise<PeerProcess> {
  const child: ChildProcess = spawn(command[0]!, command.slice(1), {
    stdio: ['pipe', 'ignore', 'pipe', 'pipe'],
  });
  let errors = '';
  child.stderr!.on('data', (data: Buffer) => {
    errors = (errors + data.toString()).slice(-2000);
  });
  child.stdin!.on('error', () => {}); // if the child has ended, its exit is reported
  let ended: string | undefined;
  let waiting: { resolve: (reply: Reply) => void; reject: (error: Error) => void } | undefined;
  const fail = (reason: string): void => {
    ended ??= reason;
    waiting?.reject(new Error(reason));
    waiting = undefined;
  };
  createInterface({ input: child.stdio[3] as Readable }).on('line', (line) => {
    const reply = JSON.parse(line) as Reply;
    if (reply.error === undefined) waiting?.resolve(reply);
    else waiting?.reject(new Error(reply.error));
    waiting = undefined;
  });
  child.on('error', ({ message }) => fail(message));
  // `close` comes after the last reply has been read.
  child.on('close', (status, signal) => {
    const last = errors.trim().split('\n').at(-1);
    fail(`its process ended (${signal ?? `status ${status}`})${last ? `: ${last}` : ''}`);
  });
  const next = async (): Promise<Reply> => {
    if (ended !== undefined) throw new Error(ended);
    const timer = setTimeout(() => {
      fail(`no reply in ${limitMs / 1000} s`);
      child.kill('SIGKILL');
    }, limitMs);
    try {
      return await new Promise<Reply>((resolve, reject) => {
        waiting = { resolve, reject };
      });
    } finally {
      clearTimeout(timer);
    }
  };
  const end = (): void => {
    ended ??= 'it was ended';
    child.kill('SIGKILL');
  };
  try {
    const { description = '' } = await next();
    return {
      description,
      request(message) {
        const reply = next();
        child.stdin!.write(`${JSON.stringify(message)}\n`);
        return reply;
      },
      isRunning: () => ended === undefined,
      end,
    };
  } catch (error) {
    end();
    throw error;
  }
}
