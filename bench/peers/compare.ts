// Runs every case in every peer: first its result is checked, then all peers that are right are timed in turn, so that
// a disturbance of the machine meets all of them.

import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { Case } from './cases.ts';
import { dataOf, readArray, relativeError } from './data.ts';
import { isDisturbed, totalMs } from './other-work.ts';
import { type PeerProcess, startPeer } from './peer-process.ts';
import { KINDS, type Kind, type Reply } from './protocol.ts';
import type { CaseResult, PeerResult, Results } from './results.ts';
import { summarise } from './statistics.ts';

/** A peer and how its process is started. */
export interface StartablePeer {
  readonly id: string;
  readonly title: string;
  /** Installs what the peer needs and returns its command. @throws Error with the reason if that is not possible. */
  readonly prepare: () => Promise<readonly string[]>;
}

export interface CompareOptions {
  /** The first one is this library: its result is the reference of a network. */
  readonly peers: readonly StartablePeer[];
  readonly cases: readonly Case[];
  readonly rounds: number;
  /** Keeps the data of the cases. */
  readonly folder: string;
  readonly say: (line: string) => void;
  /** Receives the results after each case. */
  readonly keep: (results: Results) => void;
  /** How long a sample should last. */
  readonly sampleMs?: number;
  /** How long to wait for a reply of a peer. */
  readonly limitMs?: number;
}

/** The largest relative error of a result that counts as right. Winograd's method has up to 3e-5 in these cases. */
const MOST_ERROR = 1e-3;

/** The most runs of one sample. */
const MOST_RUNS = 200;

/** How often a sample is taken until no other work disturbs it. */
const MOST_ATTEMPTS = 3;

/** How long to wait before a sample: after a run, the threads of onnxruntime spin for 30 ms. */
const PAUSE_MS = 40;

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** A peer that is ready to be timed in a case. */
interface Ready {
  readonly process: PeerProcess;
  readonly error: number;
  readonly note: string | undefined;
  readonly runs: Record<Kind, number>;
  readonly samples: Record<Kind, number[]>;
  /** The kind of each sample that other work disturbed at every attempt. */
  readonly disturbed: Kind[];
}

export async function compare(options: CompareOptions): Promise<Results> {
  const { peers, cases, rounds, folder, say, keep, sampleMs = 100, limitMs } = options;
  const processes = new Map<string, PeerProcess>();
  const commands = new Map<string, readonly string[]>();
  /** Why a peer cannot take part at all. */
  const absent = new Map<string, string>();
  const described: Record<string, { title: string; description: string }> = {};
  const done: CaseResult[] = [];
  const results = (): Results => ({
    bench: 'peers',
    date,
    node: process.version,
    cores: availableParallelism(),
    rounds,
    peers: { ...described },
    cases: [...done],
  });
  const date = new Date().toISOString();

  /** Returns the running process of a peer; starts it, and starts it again if it has crashed. */
  async function processOf(id: string): Promise<PeerProcess> {
    const running = processes.get(id);
    if (running?.isRunning()) return running;
    const started = await startPeer(commands.get(id)!, limitMs);
    processes.set(id, started);
    return started;
  }

  async function open(
    id: string,
    work: Case,
    data: string,
    expected: Float32Array | undefined,
  ): Promise<Ready> {
    const peer = await processOf(id);
    const file = join(folder, `result-${id}.f32`);
    const opened = await peer.request({ do: 'open', work, data, result: file });
    const actual = readArray(file);
    const error = relativeError(actual, expected ?? actual);
    if (!(error <= MOST_ERROR)) {
      await peer.request({ do: 'close' });
      throw new Error(`its result is wrong: the largest relative error is ${error.toExponential(1)}`);
    }
    const runs: Record<Kind, number> = { resident: 1, call: 1 };
    for (const kind of KINDS) runs[kind] = await calibrate(peer, kind, opened);
    return {
      process: peer,
      error,
      note: opened.note,
      runs,
      samples: { resident: [], call: [] },
      disturbed: [],
    };
  }

  /** Returns how many runs make a sample of the wanted length, after those runs have warmed up. */
  async function calibrate(peer: PeerProcess, kind: Kind, { mostRuns = MOST_RUNS }: Reply): Promise<number> {
    await peer.request({ do: 'time', kind, runs: 1 });
    const { ms } = await peer.request({ do: 'time', kind, runs: 1 });
    const most = kind === 'resident' ? mostRuns : MOST_RUNS;
    const runs = Math.max(1, Math.min(most, Math.ceil(sampleMs / ms!)));
    if (runs > 1) await peer.request({ do: 'time', kind, runs });
    return runs;
  }

  /** Adds a sample; repeats it if other work disturbed it, and keeps the last one. */
  async function takeSample({ process: peer, runs, samples, disturbed }: Ready, kind: Kind): Promise<void> {
    let last = 0;
    for (let attempt = 0; attempt < MOST_ATTEMPTS; attempt++) {
      await setTimeout(PAUSE_MS);
      const [start, before] = [performance.now(), totalMs()];
      const { ms, cpuMs } = await peer.request({ do: 'time', kind, runs: runs[kind] });
      const [elapsed, after] = [performance.now() - start, totalMs()];
      last = ms!;
      if (before === undefined || !isDisturbed(after! - before - cpuMs!, elapsed)) {
        samples[kind].push(last);
        return;
      }
    }
    samples[kind].push(last);
    disturbed.push(kind);
  }

  async function runCase(work: Case): Promise<CaseResult> {
    const { folder: data, expected: known } = dataOf(work, folder);
    let expected = known;
    const ready = new Map<string, Ready>();
    const failed = new Map<string, string>(absent);
    const fail = (id: string, error: unknown): void => {
      ready.delete(id);
      failed.set(id, messageOf(error));
      say(`  ${id}: ${messageOf(error)}`);
    };
    for (const [i, { id }] of peers.entries()) {
      if (absent.has(id)) continue;
      try {
        if (!expected && i > 0) throw new Error('there is no reference for its result');
        const opened = await open(id, work, data, expected);
        ready.set(id, opened);
        if (i === 0) expected ??= readArray(join(folder, `result-${id}.f32`));
        const { error, note } = opened;
        say(`  ${id}: largest relative error ${error.toExponential(1)}${note ? `, ${note}` : ''}`);
      } catch (error) {
        fail(id, error);
      }
    }
    for (let round = 0; round < rounds; round++)
      for (const kind of KINDS)
        for (const [id, peer] of [...ready]) {
          try {
            await takeSample(peer, kind);
          } catch (error) {
            fail(id, error);
          }
        }
    for (const [id, { process: peer }] of [...ready]) {
      try {
        await peer.request({ do: 'close' });
      } catch (error) {
        fail(id, error);
      }
    }
    return {
      id: work.id,
      ...(work.flops ? { flops: work.flops } : {}),
      peers: peers.map(({ id }): PeerResult => {
        const found = ready.get(id);
        if (!found) return { peer: id, reason: failed.get(id)! };
        const { error, note, samples, disturbed } = found;
        const ms = { resident: summarise(samples.resident), call: summarise(samples.call) };
        return { peer: id, error, disturbed: disturbed.length, ...(note ? { note } : {}), ms };
      }),
    };
  }

  try {
    for (const { id, title, prepare } of peers) {
      try {
        commands.set(id, await prepare());
        described[id] = { title, description: (await processOf(id)).description };
      } catch (error) {
        absent.set(id, messageOf(error));
        described[id] = { title, description: `not here: ${messageOf(error)}` };
      }
      say(`${title}: ${described[id]!.description}`);
    }
    for (const work of cases) {
      say(`\n${work.id}`);
      done.push(await runCase(work));
      keep(results());
    }
    return results();
  } finally {
    for (const peer of processes.values()) peer.end();
  }
}
