// The tables of the results, of times and of ratios: one line per case and kind of time, one column per peer.

import { KINDS, type Kind } from './protocol.ts';
import type { CaseResult, PeerResult, Results } from './results.ts';

const KIND_NAMES: Readonly<Record<Kind, string>> = { resident: 'resident', call: 'one call' };

/** Returns three significant digits without an exponent. */
export function digits(value: number): string {
  if (value >= 100) return value.toFixed(0);
  if (value >= 10) return value.toFixed(1);
  return value.toFixed(value >= 1 ? 2 : 3);
}

/** A peer's time, and how far its samples spread. */
function timeCell({ ms }: PeerResult, kind: Kind): string {
  if (!ms) return '-';
  const { median, spread } = ms[kind];
  return `${digits(median)} ±${(100 * spread).toFixed(0)}%`;
}

/** How many times as long as this library a peer takes. */
function ratioCell({ ms }: PeerResult, kind: Kind, own: PeerResult): string {
  return ms && own.ms ? `${digits(ms[kind].median / own.ms[kind].median)}x` : '-';
}

const ratesOf = ({ ms }: PeerResult, kind: Kind, flops: number | undefined): string =>
  ms && flops !== undefined ? `${digits(flops / ms[kind].median / 1e6)} GFLOP/s` : '-';

const heads = ({ peers }: Results): string[] => [
  'case',
  'time of',
  ...Object.values(peers).map(({ title }) => title),
];

/** Returns the cells of the table of times in milliseconds, the heads first. */
export function timesOf(results: Results): string[][] {
  const rows = results.cases.flatMap(({ id, peers: found }: CaseResult) =>
    KINDS.map((kind) => [id, KIND_NAMES[kind], ...found.map((result) => timeCell(result, kind))]),
  );
  return [heads(results), ...rows];
}

/** Returns the cells of the table of ratios, the heads first. The first peer, this library, has its rate instead. */
export function ratiosOf(results: Results): string[][] {
  const rows = results.cases.flatMap(({ id, flops, peers: [own, ...others] }: CaseResult) =>
    KINDS.map((kind) => [
      id,
      KIND_NAMES[kind],
      ratesOf(own!, kind, flops),
      ...others.map((result) => ratioCell(result, kind, own!)),
    ]),
  );
  return [heads(results), ...rows];
}

/** Returns why cells have no time, one line per peer and reason. */
export function reasonsOf({ peers, cases }: Results): string[] {
  const byReason = new Map<string, string[]>();
  for (const { id, peers: found } of cases)
    for (const { peer, reason } of found)
      if (reason !== undefined) {
        const key = `${peers[peer]!.title}: ${reason}`;
        byReason.set(key, [...(byReason.get(key) ?? []), id]);
      }
  return [...byReason].map(([reason, ids]) => `${reason} (${ids.join(', ')})`);
}

/** Returns a warning if other work disturbed samples, as a list of lines. */
function warningOf({ cases }: Results): string[] {
  const timed = cases.flatMap(({ peers }) => peers).filter(({ ms }) => ms);
  const disturbed = timed.reduce((sum, result) => sum + (result.disturbed ?? 0), 0);
  const samples = timed.reduce((sum, { ms }) => sum + ms!.resident.samples + ms!.call.samples, 0);
  if (disturbed === 0) return [];
  return ['', `Other work on this machine disturbed ${disturbed} of ${samples} samples.`];
}

function aligned(cells: readonly string[][]): string[] {
  const widths = cells[0]!.map((_, i) => Math.max(...cells.map((row) => row[i]!.length)));
  return cells.map((row) =>
    row
      .map((text, i) => text.padEnd(widths[i]!))
      .join('  ')
      .trimEnd(),
  );
}

/** Returns both tables as text in columns, and what they mean. */
export function tablesOf(results: Results): string {
  return [
    `Milliseconds: medians of ${results.rounds} rounds in which all peers took turns. ± is half of the range of the middle half.`,
    'resident: operands and results stay on the device, several runs, one wait. one call: upload, run, download.',
    '',
    ...aligned(timesOf(results)),
    '',
    'How many times as long as this library each peer takes:',
    '',
    ...aligned(ratiosOf(results)),
    ...warningOf(results),
    ...reasonsOf(results).map((reason, i) => (i === 0 ? `\n${reason}` : reason)),
  ].join('\n');
}
