// The summary that `bench -- device` prints at the end: the most important figures of the results file, for a reader who
// has not seen the program.

import type { Capabilities } from '../../src/kernels/device/device.ts';
import type { NetworkResult } from './networks.ts';
import type { Peak } from './peak.ts';
import { type EntryResult, NO_TIME, type WithoutChecks } from './perf.ts';
import type { ModelRun } from './shipped-models.ts';
import type { TestResults } from './test.ts';
import { timedResults } from './timed-results.ts';
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

const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value);

/** Returns a number with three digits, or with all digits before the point if there are more; `-` if there is none. */
function figure(value: unknown): string {
  if (!isNumber(value)) return '-';
  const size = Math.abs(value);
  if (size === 0 || size >= 100) return value.toFixed(0);
  if (size < 0.001) return value.toExponential(1);
  return value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(size))));
}

/** Returns milliseconds, with a star if other work disturbed the measurement. */
const milliseconds = (ms: unknown, disturbed: boolean | undefined): string =>
  `${figure(ms)}${disturbed ? '*' : ''}`;

const percent = (value: unknown): string => (isNumber(value) ? `${(100 * value).toFixed(1)} %` : '-');

/** Aligns cells in columns, the first to the left and the others to the right. Returns '' without rows. */
function table(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return '';
  const widths = titles.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  return [titles, ...rows]
    .map((row) =>
      row
        .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Joins a heading, a table and notes below it; returns nothing if there is neither a table nor a note. */
const section = (heading: string, body: string, notes: readonly string[] = []): string[] =>
  body === '' && notes.length === 0
    ? []
    : [[heading, ...(body ? [body] : []), ...notes.map((note) => `  ${note}`)].join('\n')];

function support(results: Results): string[] {
  const found = at<{ readonly families?: object; readonly capabilities?: Capabilities }>(results, 'support');
  if (!found?.families || !found.capabilities) return [];
  const { f16, matrix = [], timestamps } = found.capabilities;
  const units = matrix.map(({ M, N, K }) => `${M}x${N}x${K}`);
  return section(
    `What it supports: f16 ${f16 ? 'yes' : 'no'}, timestamps ${timestamps ? 'yes' : 'no'}, matrix units ${units.join(', ') || 'none'}; families:`,
    '',
    Object.entries(found.families).map(([family, runs]) => `${family}: ${runs === true ? 'runs' : runs}`),
  );
}

function tests(results: Results): string[] {
  const found = at<TestResults>(results, 'test');
  if (!found?.table) return [];
  const rows = found.table.filter(({ cases }) => cases > 0);
  const failed = found.table.reduce((sum, row) => sum + row.failed, 0);
  return section(
    `Kernel tests: ${found.run} of ${found.total} ran in the time that they had, ${failed} failed. The error is the one that comes closest to its bound; family - is the device's own, or none.`,
    table(
      ['test', 'family', 'passed', 'failed', 'skipped', 'not run', 'error', 'bound'],
      rows.map((row) => [
        row.op,
        row.family,
        String(row.passed),
        String(row.failed),
        String(row.skipped),
        String(row.notRun),
        ...(row.worstBound > 0
          ? [row.worstError.toExponential(1), row.worstBound.toExponential(1)]
          : ['-', '-']),
      ]),
    ),
    found.failures
      .slice(0, 20)
      .map(({ op, family, title, message }) => `FAILED ${op} ${family}: ${title}: ${message.slice(0, 160)}`),
  );
}

function peaks(results: Results): string[] {
  const peak = at<Peak>(results, 'perf', 'peak');
  if (!peak) return [];
  const rate = (name: string, value: unknown, unit: string) =>
    isNumber(value) && value > 0 ? [[name, `${figure(value)} ${unit}`]] : [];
  const launch = Object.entries((peak.launch as Record<string, unknown> | undefined) ?? {});
  return section(
    'What this device reaches at most, and what small things cost:',
    table(
      ['', ''],
      [
        ...rate('f32 in registers', peak.gflops, 'GFLOP/s'),
        ...rate('f16 in registers', peak.f16Gflops, 'GFLOP/s'),
        ...rate('matrix units, f16 factors and f32 sums', peak.matrixGflops, 'GFLOP/s'),
        ...rate('copy of memory, bytes read and written', peak.gbytes, 'GB/s'),
        ...launch.flatMap(([name, us]) => rate(name, us, 'us')),
      ],
    ).trimStart(),
  );
}

function operations(results: Results): string[] {
  const torch = at<TorchResults>(results, 'torch');
  const torchTimes = new Map(torch?.ops?.map(({ id, ms }) => [id, ms]));
  const modes = torch ? ['f32', 'tf32', 'f16'] : [];
  const entries = [
    ...list<EntryResult>(results, 'perf', 'large'),
    ...list<EntryResult>(results, 'perf', 'large-matrix'),
  ];
  const timed = entries.filter(({ timing }) => timing);
  const rows = timed.map(({ op, name, family, timing, gflops, gbytes, shareOfFlops, shareOfBytes }) => {
    const of = torchTimes.get(`${op} ${name}`);
    const best = (mode: string): string =>
      figure([of?.[mode], of?.[`${mode} channels_last`]].filter(isNumber).sort((a, b) => a - b)[0]);
    return [
      `${op} ${name}`,
      family,
      milliseconds(timing?.ms, timing?.disturbed),
      figure(gflops),
      percent(shareOfFlops),
      figure(gbytes),
      percent(shareOfBytes),
      ...modes.map(best),
    ];
  });
  const failed = entries.filter(({ error }) => error && error !== NO_TIME);
  const skipped = entries.filter(({ error }) => error === NO_TIME);
  return section(
    `Operations${torch ? ', and milliseconds of PyTorch' : ''}. A convolution counts as a direct one; Winograd's needs fewer products, so it can exceed the peak of registers.`,
    table(
      [
        'case',
        'family',
        'ms',
        'GFLOP/s',
        'of peak',
        'GB/s',
        'of copy',
        ...modes.map((mode) => `PyTorch ${mode}`),
      ],
      rows,
    ),
    [
      ...failed.map(({ op, name, error }) => `${op} ${name}: ${error!.slice(0, 160)}`),
      ...(skipped.length > 0 ? [`${skipped.length} cases did not fit into the remaining time`] : []),
    ],
  );
}

function networks(results: Results): string[] {
  const found = Object.values(at<Record<string, unknown>>(results, 'work') ?? {}).flatMap((work) => {
    const { name, results: runs } = (work ?? {}) as {
      readonly name?: string;
      readonly results?: readonly NetworkResult[];
    };
    return name !== undefined && Array.isArray(runs)
      ? (runs as readonly NetworkResult[]).map((run) => ({ ...run, name }))
      : [];
  });
  const rows = found
    .filter(({ ms }) => ms !== undefined)
    .map(({ name, precision, batch, ms, disturbed, gflops, shareOfFlops, weightMiB, activationMiB }) => [
      name,
      precision,
      String(batch),
      milliseconds(ms, disturbed),
      figure(ms! / batch),
      figure(gflops),
      percent(shareOfFlops),
      figure((weightMiB ?? Number.NaN) + (activationMiB ?? Number.NaN)),
    ]);
  const torch = (at<TorchResults>(results, 'torch')?.unets ?? []).map(({ mode, batch, ms, mebibytes }) => [
    'PyTorch, SD 1.5 UNet',
    String(mode),
    String(batch),
    figure(ms),
    isNumber(ms) ? figure(ms / Number(batch)) : '-',
    '-',
    '-',
    figure(mebibytes),
  ]);
  return section(
    'Networks with random weights, stored as f16:',
    table(
      ['network', 'activations', 'batch', 'ms', 'ms a sample', 'GFLOP/s', 'of peak', 'memory in MiB'],
      [...rows, ...torch],
    ),
    found.flatMap(({ name, precision, batch, ms, skipped, error }) =>
      ms === undefined ? [`${name}, ${precision}, batch ${batch}: ${error ?? skipped}`] : [],
    ),
  );
}

function models(results: Results): string[] {
  const found = Object.entries(
    at<Record<string, { readonly results?: readonly ModelRun[] }>>(results, 'work', 'models') ?? {},
  ).flatMap(([model, value]) => (value?.results ?? []).map((run) => ({ ...run, model })));
  return section(
    'Shipped models, the network alone:',
    table(
      ['model', 'activations', 'batch', 'ms', 'network runs/s', 'GFLOP/s', 'of peak'],
      found
        .filter(({ ms }) => ms !== undefined)
        .map(({ model, precision, batch, ms, disturbed, runsPerSecond, gflops, shareOfFlops }) => [
          model,
          precision,
          String(batch),
          milliseconds(ms, disturbed),
          figure(runsPerSecond),
          figure(gflops),
          percent(shareOfFlops),
        ]),
    ),
    found.flatMap(({ model, precision, batch, error }) =>
      error ? [`${model}, ${precision}, batch ${batch}: ${error}`] : [],
    ),
  );
}

interface PipelineRun
  extends Partial<Record<'batchSize' | 'imagesPerSecond' | 'evaluationsPerSecond' | 'idleShare', number>> {
  readonly model: string;
  readonly precision?: string;
  readonly error?: string;
}

function pipeline(results: Results): string[] {
  const found = list<PipelineRun>(results, 'work', 'pipeline');
  return section(
    'Shipped models, whole classifications of a stream of images:',
    table(
      ['model', 'activations', 'batch', 'images/s', 'evaluations/s', 'device idle'],
      found
        .filter(({ error }) => error === undefined)
        .map(({ model, precision, batchSize, imagesPerSecond, evaluationsPerSecond, idleShare }) => [
          model,
          precision ?? 'f32',
          String(batchSize),
          figure(imagesPerSecond),
          figure(evaluationsPerSecond),
          percent(idleShare),
        ]),
    ),
    found.flatMap(({ model, error }) => (error ? [`${model}: ${error}`] : [])),
  );
}

interface GradientRun {
  readonly batch: number;
  readonly gradientMs?: number;
  readonly ratio?: number;
  readonly error?: string;
  readonly skipped?: string;
}

interface FirstLabel {
  readonly model: string;
  readonly round: number;
  readonly firstLabelMs: number;
  readonly warmImagesMs: readonly number[];
}

function others(results: Results): string[] {
  const gradients = list<GradientRun>(results, 'work', 'gradient', 'results').map(
    ({ batch, gradientMs, ratio, error, skipped }) =>
      gradientMs === undefined
        ? `gradient of ${batch} views: ${error ?? skipped}`
        : `gradient of ${batch} views: ${figure(gradientMs)} ms, ${figure(ratio)} times the forward pass`,
  );
  const labels = list<FirstLabel>(results, 'firstLabel').map(
    ({ model, round, firstLabelMs, warmImagesMs }) =>
      `first label of ${model}, ${round === 0 ? 'with nothing compiled before' : 'with what the driver and the program remember'}: ${figure(firstLabelMs)} ms; of a later image: ${figure(warmImagesMs.at(-1))} ms`,
  );
  const checks = list<WithoutChecks>(results, 'perf', 'withoutChecks').map(
    ({ op, name, ratio }) => `${op} ${name}: ${figure(ratio)} times as fast without Dawn's checks of indices`,
  );
  return section('Others:', '', [...gradients, ...labels, ...checks]);
}

/** Warns of measurements that other work on the machine made too long. */
function disturbance(results: Results): string[] {
  const all = timedResults(results);
  const count = all.filter(({ disturbed }) => disturbed).length;
  return count === 0
    ? []
    : [
        `Other work used the processor during ${count} of ${all.length} measurements (*), so these are too slow: repeat them.`,
      ];
}

/** Lists the steps that were skipped, failed or stopped early. */
function notDone(results: Results): string[] {
  const reason = (value: unknown): string | undefined =>
    at<string>(value, 'error') ?? at<string>(value, 'skipped');
  const found = Object.entries(results).flatMap(([name, value]) => {
    const own = reason(value);
    if (own) return [`${name}: ${own}`];
    return Object.entries((value ?? {}) as object).flatMap(([key, part]) => {
      const inner = reason(part);
      return inner ? [`${name}.${key}: ${inner}`] : [];
    });
  });
  return section(
    'Not done:',
    '',
    found.map((line) => line.slice(0, 200)),
  );
}

/** Returns the summary as text. */
export function report(results: Results): string {
  const name = at<string>(results, 'start', 'name') ?? 'unknown device';
  const family = at<string>(results, 'start', 'family');
  return [
    `${name}: ${at<string>(results, 'start', 'description') ?? ''}${family ? `; kernels of the family ${family}` : ''}`,
    ...support(results),
    ...tests(results),
    ...peaks(results),
    ...operations(results),
    ...networks(results),
    ...models(results),
    ...pipeline(results),
    ...others(results),
    ...disturbance(results),
    ...notDone(results),
  ].join('\n\n');
}
