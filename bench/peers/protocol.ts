// What a peer's process does, and how it is asked to.

import type { Case } from './cases.ts';

/** Two kinds of time: runs with operands on the device, and calls from host memory to host memory. */
export const KINDS = ['resident', 'call'] as const;

export type Kind = (typeof KINDS)[number];

export type Inputs = Readonly<Record<string, Float32Array<ArrayBuffer>>>;

/** A case that a peer is ready to run. */
export interface OpenCase {
  /** Which of several ways was the fastest here, such as a layout. */
  readonly note?: string;
  /** The most runs that one `resident` takes. */
  readonly mostRuns?: number;
  /** Runs once and returns the result in the order of the case. */
  result(): Promise<Float32Array>;
  /** Runs several times with all operands on the device, then waits until all results are there. */
  resident(runs: number): Promise<void>;
  /** Uploads the inputs that the case names, runs once, and downloads the result. */
  call(): Promise<void>;
  close(): void | Promise<void>;
}

export interface Peer {
  /** The library, its version and its device. */
  readonly description: string;
  /** @throws Error with the reason if the peer cannot do the case. */
  open(work: Case, inputs: Inputs): Promise<OpenCase>;
}

/** A request to a peer's process, one line of JSON on its standard input. */
export type Request =
  | { readonly do: 'open'; readonly work: Case; readonly data: string; readonly result: string }
  | { readonly do: 'time'; readonly kind: Kind; readonly runs: number }
  | { readonly do: 'close' };

/** Its reply, one line of JSON on file descriptor 3. The first one comes without a request, once the peer is loaded. */
export interface Reply {
  /** The reason why the request failed. */
  readonly error?: string;
  readonly description?: string;
  readonly note?: string;
  readonly mostRuns?: number;
  /** Milliseconds of one run or call. */
  readonly ms?: number;
  /** Milliseconds of processor time that the peer used for all of them together. */
  readonly cpuMs?: number;
}
