// How fast is this library compared with others that compute the same on this machine?
//
//   npm run bench -- peers [--only gemm,conv-32] [--peers tfjs,pytorch] [--rounds 7] [--folder PATH] [--json FILE]

import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { nodeCommand } from '../node-command.ts';
import { compare, type StartablePeer } from './compare.ts';
import { install } from './install.ts';
import { HELP, type PeersOptions, parseOptions } from './options.ts';
import type { Results } from './results.ts';
import { tablesOf } from './table.ts';
import type { PeerEntry } from './versions.ts';

/** Returns the command of a TypeScript program. */
const typescript = (program: string): string[] => {
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
  return [...nodeCommand(), '--import', tsx, program];
};

const startable = (entry: PeerEntry, { folder, python }: PeersOptions): StartablePeer => ({
  id: entry.id,
  title: entry.title,
  async prepare() {
    const own = resolve(folder, entry.folder ?? entry.id);
    const program = join(import.meta.dirname, entry.program);
    if (entry.language === 'python') return [python, program];
    await install(own, entry.packages);
    return [...typescript(program), own, ...(entry.arguments ?? []), python];
  },
});

/** Replaces the file of results as a whole, so that it is complete whenever the run ends. */
function write(file: string, results: Results): void {
  writeFileSync(`${file}.part`, `${JSON.stringify(results, null, 2)}\n`);
  renameSync(`${file}.part`, file);
}

export async function main(): Promise<void> {
  let options: PeersOptions | undefined;
  try {
    options = parseOptions(process.argv.slice(2));
  } catch (error) {
    console.error(`bench peers: ${(error as Error).message}`);
    process.exitCode = 2;
    return;
  }
  if (!options) {
    console.log(HELP);
    return;
  }
  const { cases, peers, rounds, folder, json } = options;
  mkdirSync(folder, { recursive: true });
  mkdirSync(dirname(resolve(json)), { recursive: true });
  const results = await compare({
    cases,
    rounds,
    folder: resolve(folder),
    peers: peers.map((entry) => startable(entry, options)),
    say: (line) => console.log(line),
    keep: (partial) => write(json, partial),
  });
  console.log(`\n${tablesOf(results)}\n\nresults: ${json}`);
}
