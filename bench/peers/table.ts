// The table of the results: one line per case and kind of time, one column per peer.

import type { CaseResult, PeerResult, Results } from './results.ts';
import { KINDS, type Kind } from './work.ts';

const KIND_NAMES: Readonly<Record<Kind, string>> = { resident: 'resident', call: 'one call' };

/** Returns three significant digits without an exponent. */
export function digits(value: number): string {
  if (value >= 100) return value.toFixed(0);
  if (value >= 10) return value.toFixed(1);
  return value.toFixed(value >= 1 ? 2 : 3);
}

function ownCell({ ms }: PeerResult, kind: Kind, flops: number | undefined): string {
  if (!ms) return '-';
  const { median, spread } = ms[kind];
  const rate = flops === undefined ? '' : `, ${digits(flops / median / 1e6)} GFLOP/s`;
  return `${digits(median)} ms ±${(100 * spread).toFixed(0)}%${rate}`;
}

/** A peer's time, and how many times as long as ours it is. */
function cell({ ms }: PeerResult, kind: Kind, own: PeerResult): string {
  if (!ms) return '-';
  const time = `${digits(ms[kind].median)} ms`;
  return own.ms ? `${time} (${digits(ms[kind].median / own.ms[kind].median)}x)` : time;
}

/** Returns the cells of the table, the heads first. */
export function cellsOf({ peers, cases }: Results): string[][] {
  const heads = ['case', 'time of', ...Object.values(peers).map(({ title }) => title)];
  const rows = cases.flatMap(({ id, flops, peers: found }: CaseResult) =>
    KINDS.map((kind) => [
      id,
      KIND_NAMES[kind],
      ...found.map((result, i) => (i === 0 ? ownCell(result, kind, flops) : cell(result, kind, found[0]!))),
    ]),
  );
  return [heads, ...rows];
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

/** Returns the table as text in columns, and what it means. */
export function tableOf(results: Results): string {
  const cells = cellsOf(results);
  const widths = cells[0]!.map((_, i) => Math.max(...cells.map((row) => row[i]!.length)));
  const lines = cells.map((row) =>
    row
      .map((text, i) => text.padEnd(widths[i]!))
      .join('  ')
      .trimEnd(),
  );
  return [
    ...lines,
    '',
    `Medians of ${results.rounds} rounds in which all peers took turns; ± is half of the range of the middle half.`,
    'resident: operands and results stay on the device, several runs, one wait. one call: upload, run, download.',
    '(2.00x): the peer takes twice as long as this library.',
    ...reasonsOf(results),
  ].join('\n');
}
