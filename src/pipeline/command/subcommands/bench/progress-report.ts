// What all benchmarks of the command have in common: a line on standard output and a JSON file that grow together.

import type { BenchReport, BenchResult } from '../../../../bench/report.ts';
import { jsonFile } from '../../shared/json-file.ts';
import { readManifest } from '../../shared/provenance.ts';
import type { Surroundings } from '../../shared/subcommand.ts';
import { streamWriter } from '../../shared/writers.ts';

/** What a report says before the first result. */
type Head = Omit<BenchReport, 'results'>;

/** A benchmark's output. Results are in the file before they are shown, so that a closed pipe loses none. */
export interface Progress {
  /** Adds results to the file, and prints text. */
  add(results: readonly BenchResult[], text: string): Promise<void>;
  /** Whether results are lost from now on: the reader closed standard output, and no file is written. */
  readonly unread: boolean;
  readonly results: readonly BenchResult[];
}

/** Begins a report. @throws UsageError if the file cannot be written. */
export function beginReport(
  { stdout }: Pick<Surroundings, 'stdout'>,
  json: string | undefined,
  head: Head,
): Progress {
  const writer = streamWriter(stdout);
  const save = json === undefined ? undefined : jsonFile(json);
  const results: BenchResult[] = [];
  const program = {
    version: readManifest().version,
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    date: new Date().toISOString(),
  };
  const keep = () => save?.({ ...head, ...program, results });
  keep();
  return {
    results,
    get unread() {
      return writer.closed && save === undefined;
    },
    async add(added, text) {
      results.push(...added);
      keep();
      await writer.write(text);
    },
  };
}
