// The main loop of a peer's process: reads requests, runs them one after another, and replies.

import { readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Case } from './cases.ts';
import type { Inputs, OpenCase, Peer, Reply, Request } from './protocol.ts';

const REPLIES = 3;

const reply = (message: Reply): void => {
  writeSync(REPLIES, `${JSON.stringify(message)}\n`);
};

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

const readArray = (path: string): Float32Array<ArrayBuffer> => {
  const bytes = readFileSync(path);
  return new Float32Array(new Uint8Array(bytes).buffer);
};

const readInputs = ({ inputs }: Case, folder: string): Inputs =>
  Object.fromEntries(Object.keys(inputs).map((name) => [name, readArray(join(folder, `${name}.f32`))]));

/** Answers requests on standard input until it ends. */
export async function serve(load: () => Promise<Peer>): Promise<void> {
  let peer: Peer;
  try {
    peer = await load();
  } catch (error) {
    reply({ error: messageOf(error) });
    return;
  }
  reply({ description: peer.description });
  let current: OpenCase | undefined;

  const answer = async (request: Request): Promise<Reply> => {
    if (request.do !== 'time') {
      await current?.close();
      current = undefined;
    }
    if (request.do === 'close') return {};
    if (request.do === 'open') {
      current = await peer.open(request.work, readInputs(request.work, request.data));
      writeFileSync(request.result, await current.result());
      const { note, mostRuns } = current;
      return { ...(note ? { note } : {}), ...(mostRuns ? { mostRuns } : {}) };
    }
    const { kind, runs } = request;
    const cpu = process.cpuUsage();
    const start = performance.now();
    if (kind === 'resident') await current!.resident(runs);
    else for (let i = 0; i < runs; i++) await current!.call();
    const ms = (performance.now() - start) / runs;
    const { user, system } = process.cpuUsage(cpu);
    return { ms, cpuMs: (user + system) / 1000 };
  };

  for await (const line of createInterface({ input: process.stdin })) {
    try {
      reply(await answer(JSON.parse(line) as Request));
    } catch (error) {
      reply({ error: messageOf(error) });
    }
  }
  process.exit(0);
}
