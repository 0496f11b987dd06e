// The options of `npm run bench -- peers`.

import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { CASES, type Case } from './cases.ts';
import { OURS, PEERS, type PeerEntry } from './versions.ts';

export const HELP = `npm run bench -- peers [options]

Compares this library with other libraries, in one run and by turns. Each is installed into a folder of its own, runs in
a process of its own, and is timed only if its results are right.

  --only LIST     cases whose name contains one of these (default: all): ${CASES.map(({ id }) => id).join(', ')}
  --peers LIST    libraries to compare with (default: all): ${PEERS.filter((peer) => peer !== OURS)
    .map(({ id }) => id)
    .join(', ')}
  --rounds N      samples per case and library (default: 7)
  --folder PATH   where libraries are installed and data is kept (default: ${join('TMP', 'diffclass-stream-peers')})
  --python PATH   a Python that has PyTorch and diffusers (default: python3)
  --json FILE     where results are written after each case (default: results.json in the folder)
  --help          prints this text
`;

export interface PeersOptions {
  readonly cases: readonly Case[];
  /** This library, then the others. */
  readonly peers: readonly PeerEntry[];
  readonly rounds: number;
  readonly folder: string;
  readonly python: string;
  readonly json: string;
}

const listOf = (text: string): string[] => text.split(',').filter((name) => name !== '');

/**
 * Returns the options of a command line; undefined if it asks for help.
 * @throws Error if an option is unknown or its value is not valid.
 */
export function parseOptions(args: readonly string[]): PeersOptions | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: 'string' },
      peers: { type: 'string' },
      rounds: { type: 'string', default: '7' },
      folder: { type: 'string', default: join(tmpdir(), 'diffclass-stream-peers') },
      python: { type: 'string', default: 'python3' },
      json: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  const rounds = Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < 1)
    throw new Error(`expected --rounds to be a positive integer, got "${values.rounds}"`);
  const parts = values.only === undefined ? [''] : listOf(values.only);
  for (const part of parts)
    if (!CASES.some(({ id }) => id.includes(part)))
      throw new Error(
        `expected --only to name some of ${CASES.map(({ id }) => id).join(', ')}, got "${part}"`,
      );
  const others = PEERS.filter((peer) => peer !== OURS);
  const names = values.peers === undefined ? others.map(({ id }) => id) : listOf(values.peers);
  const unknown = names.find((name) => !others.some(({ id }) => id === name));
  if (unknown !== undefined)
    throw new Error(
      `expected --peers to be a list of ${others.map(({ id }) => id).join(', ')}, got "${unknown}"`,
    );
  return {
    cases: CASES.filter(({ id }) => parts.some((part) => id.includes(part))),
    peers: [OURS, ...others.filter(({ id }) => names.includes(id))],
    rounds,
    folder: values.folder,
    python: values.python,
    json: values.json ?? join(values.folder, 'results.json'),
  };
}
