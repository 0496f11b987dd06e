// Lists what a run of `bench -- device` timed repeatedly, in the form in which all benchmarks write their results and which
// `bench compare` reads.

import type { BenchResult } from '../../src/bench/report.ts';
import type { NetworkResult } from './networks.ts';
import type { EntryResult } from './perf.ts';
import type { ModelRun } from './shipped-models.ts';

interface Sections {
  readonly perf?: Readonly<Record<string, unknown>>;
  readonly work?: Readonly<Record<string, unknown>>;
}

/** A list of results, or what a step that failed had measured before. */
const listOf = <T>(value: unknown): readonly T[] => {
  if (Array.isArray(value)) return value as T[];
  const { partial } = (value ?? {}) as { readonly partial?: readonly T[] };
  return partial ?? [];
};

type Repeated = Pick<BenchResult, 'ms' | 'samples' | 'disturbed'>;

const timed = (name: string, { ms, samples, disturbed }: Repeated, family?: string): BenchResult[] =>
  ms === undefined || samples === undefined
    ? []
    : [{ name, ...(family !== undefined && { family }), ms, samples, disturbed: disturbed ?? false }];

/** Returns the kernel cases of all steps and families, and the networks and models. */
export function timedResults({ perf = {}, work = {} }: Sections): BenchResult[] {
  const cases = Object.entries(perf)
    .filter(([step]) => /^(large|cases)(-|$)/.test(step))
    .flatMap(([, entries]) => listOf<EntryResult>(entries))
    .flatMap(({ op, name, family, timing }) => timed(`${op} ${name}`, timing ?? {}, family));
  const { models = {}, ...others } = work;
  const networks = Object.values(others).flatMap((step) => {
    const { name, results } = (step ?? {}) as { readonly name?: string; readonly results?: unknown };
    return name === undefined
      ? []
      : listOf<NetworkResult>(results).flatMap((run) =>
          timed(`${name}, ${run.precision}, batch ${run.batch}`, run),
        );
  });
  const shipped = Object.entries(models as Readonly<Record<string, { readonly results?: unknown }>>).flatMap(
    ([name, model]) =>
      listOf<ModelRun>(model?.results).flatMap((run) =>
        timed(`${name}, ${run.precision}, batch ${run.batch}`, run),
      ),
  );
  return [...cases, ...networks, ...shipped];
}
