// The results of the comparison, as they are written to the JSON file.

import type { Kind } from './protocol.ts';
import type { Summary } from './statistics.ts';

/** What one peer did in one case: its times, or the reason why there are none. */
export interface PeerResult {
  readonly peer: string;
  readonly reason?: string;
  readonly note?: string;
  /** The largest difference from the reference, relative to the largest value. */
  readonly error?: number;
  /** Samples that other work on the processors disturbed, and again when they were repeated. */
  readonly disturbed?: number;
  /** Milliseconds of a run or call. */
  readonly ms?: Readonly<Record<Kind, Summary>>;
}

export interface CaseResult {
  readonly id: string;
  readonly flops?: number;
  readonly peers: readonly PeerResult[];
}

export interface Results {
  readonly bench: 'peers';
  readonly date: string;
  readonly node: string;
  readonly cores: number;
  readonly rounds: number;
  /** The title of each peer, and its version and device or the reason why it did not start. */
  readonly peers: Readonly<Record<string, { readonly title: string; readonly description: string }>>;
  readonly cases: readonly CaseResult[];
}
