// The summary that `bench -- device` prints at the end: the most important figures, from the results as they were
// written.

import type { NetworkResult } from './networks.ts';
import type { EntryResult } from './perf.ts';
import type { TestResults } from './test.ts';
import type { TorchResults } from './torch.ts';

type Results = Readonly<Record<string, unknown>>;

/** Follows keys into results; returns undefined if any part is missing. */
function at<T>(results: unknown, ...path: (string | number)[]): T | undefined {
  let value = results;
  for (const key of path) value = (value as Record<string, unknown> | undefined | null)?.[key];
  return value as T | undefined;
}

/** Returns a list of results; of a step that failed, those from before the failure. */
function list<T>(results: unknown, ...path: (string | number)[]): readonly T[] {
  const value = at<unknown>(results, ...path);
  if (Array.isArray(value)) return value as T[];
  return at<readonly T[]>(value, 'partial') ?? [];
}

const fixed = (value: number | undefined, digits: number): string =>
  typeof value === 'number' && Number.isFinite(value) ? value.toFixed(digits) : '-';

const percent = (value: number | undefined): string =>
  typeof value === 'number' && Number.isFinite(value) ? `${(100 * value).toFixed(1)} %` : '-';

/** Aligns cells in columns, the first to the left and the others to the right. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Returns the summary as text. */
export function report(results: Results): string {
  const parts: string[] = [];
  const name = at<string>(results, 'start', 'name') ?? 'unknown device';
  parts.push(`${name}: ${at<string>(results, 'start', 'description') ?? ''}`);

  const tests = at<TestResults>(results, 'test');
  if (tests?.table) {
    const rows = [['test', 'family', 'run', 'passed', 'failed', 'skipped', 'worst error / bound']];
    for (const row of tests.table)
      if (row.cases > 0)
        rows.push([
          row.op,
          row.family,
          `${row.cases}/${row.cases + row.notRun}`,
          String(row.passed),
          String(row.failed),
          String(row.skipped),
          `${row.worstError.toExponential(1)} / ${row.worstBound.toExponential(1)}`,
        ]);
    parts.push(table(rows));
    for (const { op, family, title, message } of tests.failures.slice(0, 20))
      parts.push(`FAILED ${op} ${family}: ${title}: ${message.slice(0, 160)}`);
  }

  const peak = at<Record<string, unknown>>(results, 'perf', 'peak');
  if (peak) {
    const rows = [['peak', '']];
    rows.push(['f32 in registers', `${fixed(peak.gflops as number, 0)} GFLOP/s`]);
    const extra = at<Record<string, number>>(results, 'perf', 'extra');
    if (extra?.f16Gflops) rows.push(['f16 in registers', `${fixed(extra.f16Gflops, 0)} GFLOP/s`]);
    if (extra?.matrixGflops) rows.push(['matrix units', `${fixed(extra.matrixGflops, 0)} GFLOP/s`]);
    rows.push(['copy', `${fixed(peak.gbytes as number, 0)} GB/s`]);
    for (const [key, us] of Object.entries((peak.launch as Record<string, number> | undefined) ?? {}))
      if (typeof us === 'number') rows.push([key, `${fixed(us, 1)} us`]);
    parts.push(table(rows));
  }

  const large = list<EntryResult>(results, 'perf', 'large');
  const torch = at<TorchResults>(results, 'perf', 'torch') ?? at<TorchResults>(results, 'torch');
  if (large.length > 0) {
    const torchTimes = new Map(torch?.ops?.map(({ id, ms }) => [id, ms]));
    const rows = [['case', 'ms', 'GFLOP/s', 'of peak', 'GB/s', 'of copy', 'PyTorch f32', 'tf32', 'f16']];
    for (const { op, name: of, timing, gflops, gbytes, shareOfFlops, shareOfBytes, error } of large) {
      const ms = torchTimes.get(`${op} ${of}`);
      const best = (mode: string): string => {
        const times = [ms?.[mode], ms?.[`${mode} channels_last`]].filter(
          (value) => typeof value === 'number',
        );
        return times.length > 0 ? fixed(Math.min(...times), 3) : '-';
      };
      rows.push([
        `${op} ${of}`,
        error ? error.slice(0, 24) : fixed(timing?.ms, 3),
        fixed(gflops, 0),
        percent(shareOfFlops),
        fixed(gbytes, 0),
        percent(shareOfBytes),
        best('f32'),
        best('tf32'),
        best('f16'),
      ]);
    }
    parts.push(table(rows));
  }

  const networks = ['unet', 'dit'].flatMap((key) => {
    const found = at<readonly NetworkResult[]>(results, 'work', key, 'results') ?? [];
    return found.map((result) => ({ ...result, name: key === 'unet' ? 'SD 1.5 UNet' : 'DiT-XL/2' }));
  });
  if (networks.length > 0) {
    const rows = [['network', 'batch', 'ms', 'TFLOP/s', 'of peak', 'memory MiB']];
    for (const {
      name: of,
      batch,
      ms,
      gflops,
      shareOfFlops,
      weightMiB,
      activationMiB,
      skipped,
      error,
    } of networks)
      rows.push([
        of,
        String(batch),
        ms === undefined ? (error ?? skipped ?? '').slice(0, 40) : fixed(ms, 2),
        fixed(gflops === undefined ? undefined : gflops / 1000, 2),
        percent(shareOfFlops),
        fixed((weightMiB ?? Number.NaN) + (activationMiB ?? Number.NaN), 0),
      ]);
    for (const { mode, batch, ms, mebibytes } of torch?.unets ?? [])
      rows.push([
        `PyTorch UNet, ${mode}`,
        String(batch),
        fixed(ms as number | undefined, 2),
        '-',
        '-',
        fixed(mebibytes as number | undefined, 0),
      ]);
    parts.push(table(rows));
  }

  const models = at<Record<string, { readonly results?: readonly Record<string, number>[] }>>(
    results,
    'work',
    'models',
  );
  if (models) {
    const rows = [['model', 'batch', 'ms', 'network runs/s', 'GFLOP/s', 'of peak']];
    for (const [of, { results: found = [] }] of Object.entries(models))
      if (Array.isArray(found))
        for (const { batch, ms, runsPerSecond, gflops, shareOfFlops } of found)
          if (ms !== undefined)
            rows.push([
              of,
              String(batch),
              fixed(ms, 3),
              fixed(runsPerSecond, 0),
              fixed(gflops, 0),
              percent(shareOfFlops),
            ]);
    if (rows.length > 1) parts.push(table(rows));
  }

  const pipeline = list<Record<string, number>>(results, 'work', 'pipeline');
  if (pipeline.length > 0) {
    const rows = [['pipeline', 'batch', 'images/s', 'evaluations/s', 'idle']];
    for (const { model, batchSize, imagesPerSecond, evaluationsPerSecond, idleShare } of pipeline)
      rows.push([
        String(model),
        String(batchSize),
        fixed(imagesPerSecond, 1),
        fixed(evaluationsPerSecond, 0),
        percent(idleShare),
      ]);
    parts.push(table(rows));
  }

  const gradient = at<readonly Record<string, number>[]>(results, 'work', 'gradient', 'results');
  if (Array.isArray(gradient))
    for (const { batch, gradientMs, ratio } of gradient)
      if (gradientMs !== undefined)
        parts.push(
          `gradient of ${batch} views: ${fixed(gradientMs, 2)} ms, ${fixed(ratio, 2)} times the forward pass`,
        );
  const first = list<Record<string, number>>(results, 'firstLabel');
  for (const { model, round, firstLabelMs, warmImagesMs } of first)
    parts.push(
      `first label of ${model}, ${round === 0 ? 'cold' : 'fresh device'}: ${fixed(firstLabelMs, 0)} ms; warm ${fixed((warmImagesMs as unknown as number[])?.at(-1), 1)} ms`,
    );

  const failed = Object.entries(results).flatMap(([section, value]) => {
    const own = at<string>(value, 'error');
    const inner = Object.entries((value ?? {}) as object).flatMap(([key, part]) => {
      const reason = at<string>(part, 'error') ?? at<string>(part, 'skipped');
      return reason && key !== 'error' ? [`${section}.${key}: ${reason}`] : [];
    });
    const skipped = at<string>(value, 'skipped');
    return [...(own ? [`${section}: ${own}`] : []), ...(skipped ? [`${section}: ${skipped}`] : []), ...inner];
  });
  if (failed.length > 0)
    parts.push(`not done:\n${failed.map((line) => `  ${line.slice(0, 200)}`).join('\n')}`);
  return parts.join('\n\n');
}
