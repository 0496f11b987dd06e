// `npm run bench -- device` measures one device in one command, within minutes. What can it do, are the kernels' results
// right on it, how fast is every kernel compared with the device's peaks, and how fast are whole networks and pipelines?
//
//   npm run bench -- device [--mode support,test,perf,work] [--torch python3] [--out FILE] [--budget SECONDS]
//                           [--precision f16,f32] [--root FOLDER]
//
// --root (or the variable DIFFCLASS_BENCH_ROOT) is the folder that holds `weights/` and `bench/device.py`; the default is
// the current folder. Without --out the results go to bench/results/<device>.json in it.

import { mkdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { Family } from '../../src/kernels/device/device.ts';
import { FAMILIES, RUNS_ON } from '../../src/kernels/device/families.ts';
import type { Stored } from '../../src/kernels/device/storage.ts';
import { ditXl2, stableDiffusion, timeNetwork } from './networks.ts';
import { measurePeaks, type Peak } from './peak.ts';
import { chosenEntries, suiteEntries, timeEntries, withoutChecks } from './perf.ts';
import { report } from './report.ts';
import { searchesOf, searchTilesOf } from './search.ts';
import { newSession, type Session, type Step } from './session.ts';
import { timeGradients, timeModels } from './shipped-models.ts';
import { firstLabel, timePipeline } from './shipped-pipeline.ts';
import { childBegan, supervise } from './supervise.ts';
import { support } from './support.ts';
import { testKernels } from './test.ts';
import { runTorch } from './torch.ts';

const MODES = ['support', 'test', 'perf', 'work'] as const;
/** The mode of `--search`, which is not part of a whole run. */
const SEARCH = 'search';

const isStored = (name: string): name is Stored => name === 'f16' || name === 'f32';

const slug = (name: string): string =>
  name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '') || 'unknown';

interface PlannedStep {
  /** Where its results go: a section of the results file, or `section.key`. */
  readonly name: string;
  /** The modes that include the step. */
  readonly mode: readonly string[];
  /** Share of the budget, relative to the other steps of the run. */
  readonly part: number;
  readonly torch?: true;
  readonly run: (step: Step, modes: ReadonlySet<string>) => Promise<unknown>;
}

/** Returns all steps in the order in which they run, the most valuable ones first. */
function stepsOf(
  session: Session,
  {
    software,
    own,
    runs,
    precisions,
  }: {
    readonly software: boolean;
    readonly own: Family | undefined;
    readonly runs: readonly Family[];
    /** The precisions of whole networks, the most interesting one first. */
    readonly precisions: readonly Stored[];
  },
): PlannedStep[] {
  // Later steps divide by the peaks, and predict their time from them. These defaults are for a run in which they could
  // not be measured.
  const peak = (): Peak => {
    const found = (session.results.perf as { readonly peak?: Partial<Peak> } | undefined)?.peak;
    return { ...found, gflops: found?.gflops || 50, gbytes: found?.gbytes || 5 };
  };
  const families = runs.filter((family) => family !== own);
  return [
    // The first label must be measured before anything else compiles a pipeline.
    { name: 'firstLabel', mode: ['work'], part: 6, run: (step) => firstLabel(session, step) },
    { name: 'support', mode: ['support'], part: 2, run: (step) => support(session, step) },
    { name: 'perf.peak', mode: ['perf', 'work'], part: 9, run: (step) => measurePeaks(session, step) },
    {
      name: 'work.unet',
      mode: ['work'],
      part: 26, // the weights alone take 20 s
      run: (step) => timeNetwork(session, step, stableDiffusion, [1, 4, 16], precisions[0]!, peak()),
    },
    {
      name: 'work.models',
      mode: ['work'],
      part: 8,
      run: (step) =>
        timeModels(session, step, { batches: [16, 64, 128, 256, 1024, 4096], precisions, peaks: peak() }),
    },
    {
      name: 'work.pipeline',
      mode: ['work'],
      part: 8,
      run: (step) =>
        timePipeline(session, step, {
          images: software ? 256 : 4000,
          factors: software ? [1] : [1, 8],
        }),
    },
    {
      name: 'work.gradient',
      mode: ['work'],
      part: 4,
      run: (step) => timeGradients(session, step, [64, 256]),
    },
    { name: 'test', mode: ['test'], part: 14, run: (step) => testKernels(session, step) },
    {
      name: 'perf.large',
      mode: ['perf'],
      part: 8,
      run: (step) => timeEntries(session, step, undefined, chosenEntries, peak()),
    },
    ...families
      .filter((family) => family === 'matrix')
      .map(
        (family): PlannedStep => ({
          name: `perf.large-${family}`,
          mode: ['perf'],
          part: 8,
          run: (step) => timeEntries(session, step, family, chosenEntries, peak()),
        }),
      ),
    {
      name: 'torch',
      mode: ['perf', 'work'],
      part: 26,
      torch: true,
      run: (step, modes) =>
        runTorch(session, step, {
          entries: modes.has('perf') ? chosenEntries : [],
          unet: modes.has('work') ? (software ? [1] : [1, 4, 16]) : [],
          compile: !software,
        }),
    },
    {
      name: 'work.dit',
      mode: ['work'],
      part: 6,
      run: (step) => timeNetwork(session, step, ditXl2, [8], precisions[0]!, peak()),
    },
    ...precisions.slice(1).map(
      (precision): PlannedStep => ({
        name: `work.unet-${precision}`,
        mode: ['work'],
        part: 14,
        run: (step) => timeNetwork(session, step, stableDiffusion, [1, 4], precision, peak()),
      }),
    ),
    // Flags that the product does not set come late, because a driver may crash with them.
    {
      name: 'perf.withoutChecks',
      mode: ['perf'],
      part: 3,
      run: (step) => withoutChecks(session, step, peak()),
    },
    {
      name: 'perf.cases',
      mode: ['perf'],
      part: 8,
      run: (step) => timeEntries(session, step, undefined, suiteEntries, peak()),
    },
    ...searchesOf(runs, software).map(
      ({ name, family, entry }): PlannedStep => ({
        name: `${SEARCH}.${name}`,
        mode: [SEARCH],
        part: 1,
        run: (step) => searchTilesOf(session, step, family, entry),
      }),
    ),
    ...families.map(
      (family): PlannedStep => ({
        name: `perf.cases-${family}`,
        mode: ['perf'],
        part: 4,
        run: (step) => timeEntries(session, step, family, suiteEntries, peak()),
      }),
    ),
  ];
}

/**
 * Runs the benchmark. `prefix` are the arguments before the options that the caller has removed from the command line;
 * the child process, which gets the same command line, needs them again.
 */
export async function main(prefix: readonly string[] = []): Promise<void> {
  const { values } = parseArgs({
    options: {
      mode: { type: 'string', default: MODES.join() },
      torch: { type: 'string' },
      out: { type: 'string' },
      budget: { type: 'string', default: '450' },
      precision: { type: 'string' },
      root: { type: 'string', default: process.env.DIFFCLASS_BENCH_ROOT ?? '.' },
      /** Continues after the steps that are in the results file. */
      resume: { type: 'boolean', default: false },
    },
  });
  const modes = new Set(values.mode.split(','));
  const unknown = [...modes].find((mode) => ![...MODES, SEARCH].includes(mode));
  if (unknown !== undefined) {
    console.error(`bench device: expected --mode to be a list of ${MODES.join(', ')}, got "${unknown}"`);
    process.exitCode = 2;
    return;
  }
  const budget = Number(values.budget);
  if (!(budget > 0)) {
    console.error(`bench device: expected --budget to be a number of seconds, got "${values.budget}"`);
    process.exitCode = 2;
    return;
  }
  const asked = values.precision?.split(',');
  if (asked && !asked.every(isStored)) {
    console.error(
      `bench device: expected --precision to be a list of f16 and f32, got "${values.precision}"`,
    );
    process.exitCode = 2;
    return;
  }
  const began = childBegan();
  if (began === undefined) {
    const status = await supervise(prefix);
    if (status !== undefined) {
      process.exitCode = status;
      return;
    }
  }
  const root = resolve(values.root);
  const session = newSession({
    root,
    out: values.out ? resolve(values.out) : undefined,
    budget,
    torch: values.torch,
    began: began ?? Date.now(),
  });
  const { results, step } = session;

  // A restarted process has --out; its file must be read before anything is written.
  if (values.resume) session.resume();
  Object.assign(results, {
    bench: 'device',
    date: new Date(began ?? Date.now()).toISOString(),
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    modes: [...modes],
    budget,
  });

  await step('start', 30, async ({ say }) => {
    const { capabilities, name } = await session.device();
    const file = `${slug(name)}${modes.has(SEARCH) ? '-tiles' : ''}.json`;
    if (!session.out()) session.setOut(join(root, 'bench', 'results', file));
    mkdirSync(dirname(session.out()!), { recursive: true });
    say(`results: ${session.out()}`);
    const { software, family, description, f16 } = capabilities;
    const runs = FAMILIES.filter((one) => RUNS_ON[one](capabilities));
    return { name, description, software, family, runs, f16 };
  });
  if (!session.out()) session.setOut(join(root, 'bench', 'results', 'unknown.json'));
  const {
    software = false,
    family: own,
    runs = ['tile', 'plain'],
    f16 = false,
  } = (results.start ?? {}) as {
    readonly software?: boolean;
    readonly family?: Family;
    /** The families that the device can run. */
    readonly runs?: readonly Family[];
    readonly f16?: boolean;
  };
  // Software drivers emulate arithmetic in f16, so `--precision auto` never chooses it there.
  const precisions: readonly Stored[] = asked ?? (f16 && !software ? ['f16', 'f32'] : ['f32']);

  /** Prints the table of all results so far and exits; also after a signal. */
  const end = (status: number): never => {
    session.write();
    session.closeDevices();
    console.log(`\n${report(results)}\n`);
    for (const text of session.deviceErrors.slice(0, 10)) console.log(`device error: ${text.slice(0, 300)}`);
    console.log(`${session.elapsed().toFixed(1)} s; results: ${session.out()}`);
    // A step that timed out may still wait for the device.
    process.exit(status);
  };
  process.once('SIGTERM', () => end(143));
  process.once('SIGINT', () => end(130));

  const steps = stepsOf(session, { software, own, runs, precisions }).filter(
    ({ mode, torch }) => mode.some((one) => modes.has(one)) && (!torch || values.torch !== undefined),
  );
  for (const [i, { name, part, run }] of steps.entries()) {
    // Each step gets its part of the remaining time, which includes what earlier steps did not use.
    const parts = steps.slice(i).reduce((sum, later) => sum + later.part, 0);
    await step(name, Math.max(5, ((session.left() / 1000 - 5) * part) / parts), (at) => run(at, modes));
  }
  results.done = true;
  end(0);
}
