// `--mode test`: runs the kernel tests of this repository on this device, and records the largest error and bound of
// each. It runs the test files themselves (see test/kernels/test-functions.ts).

import { FAMILIES } from '../../src/kernels/device/families.ts';
import { closeTestDevices, testDevice } from '../../test/kernels/harness.ts';
import { type CaseResult, type RecordedCase, runCase, takeFile } from '../../test/kernels/test-functions.ts';
import type { Session, Step } from './session.ts';

/** The test files of kernels, those that matter most first; test/bench/device.test.ts compares them with the folder. */
export const FILES: Readonly<Record<string, () => Promise<unknown>>> = {
  linear: () => import('../../test/kernels/linear.test.ts'),
  conv2d: () => import('../../test/kernels/conv2d.test.ts'),
  attention: () => import('../../test/kernels/attention.test.ts'),
  'group-norm': () => import('../../test/kernels/group-norm.test.ts'),
  elementwise: () => import('../../test/kernels/elementwise.test.ts'),
  noise: () => import('../../test/kernels/noise.test.ts'),
  gemm: () => import('../../test/kernels/gemm.test.ts'),
  matrix: () => import('../../test/kernels/matrix.test.ts'),
  'weight-gradient': () => import('../../test/kernels/weight-gradient.test.ts'),
  'input-gradient': () => import('../../test/kernels/input-gradient.test.ts'),
  'attention-backward': () => import('../../test/kernels/attention-backward.test.ts'),
  'norms-backward': () => import('../../test/kernels/norms-backward.test.ts'),
  'pixel-resize-backward': () => import('../../test/kernels/pixel-resize-backward.test.ts'),
  'noise-backward': () => import('../../test/kernels/noise-backward.test.ts'),
  sums: () => import('../../test/kernels/sums.test.ts'),
  philox: () => import('../../test/kernels/philox.test.ts'),
  'pick-head': () => import('../../test/kernels/pick-head.test.ts'),
  'dataset-posterior': () => import('../../test/kernels/dataset-posterior.test.ts'),
  indexing: () => import('../../test/kernels/indexing.test.ts'),
  'gemm-tiles': () => import('../../test/kernels/gemm-tiles.test.ts'),
  storage: () => import('../../test/kernels/storage.test.ts'),
};

interface Row {
  /** The name of the test file. */
  readonly op: string;
  /** '-' for tests that need no device or run on the device's own family. */
  readonly family: string;
  cases: number;
  passed: number;
  skipped: number;
  failed: number;
  comparisons: number;
  /** The largest error as a share of its bound, then both; without comparisons for equality, whose bound is 0. */
  worst: number;
  worstError: number;
  worstBound: number;
  worstCase: string;
  milliseconds: number;
  notRun: number;
}

interface Failure {
  readonly op: string;
  readonly family: string;
  readonly title: string;
  readonly message: string;
}

/** Files whose tests compile dozens of kernels each, for which some drivers take minutes. They come last. */
const SLOW = ['gemm-tiles'];

/** Milliseconds after which a test is abandoned and the devices are closed. */
const CASE_MS = 60_000;

export interface TestResults {
  readonly table: readonly Row[];
  readonly failures: readonly Failure[];
  readonly total: number;
  readonly run: number;
  readonly complete: boolean;
}

/** Runs a test with a time limit. A test during which a device reports an error has failed. */
async function runOne(session: Session, recorded: RecordedCase): Promise<CaseResult> {
  const errors = session.deviceErrors.length;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<CaseResult>((resolve) => {
    timer = setTimeout(
      () => resolve({ outcome: 'failed', comparisons: [], message: `not done in ${CASE_MS / 1000} s` }),
      CASE_MS,
    );
  });
  const result = await Promise.race([runCase(recorded), late]);
  clearTimeout(timer);
  const deviceErrors = session.deviceErrors.slice(errors);
  return deviceErrors.length > 0
    ? { ...result, outcome: 'failed', message: deviceErrors.join('; ') }
    : result;
}

/** Runs the kernel tests of every file and family in turn, until all are run or the time is used up. */
export async function testKernels(session: Session, step: Step): Promise<TestResults> {
  const rows = new Map<string, Row>();
  const failures: Failure[] = [];
  const queues: { readonly key: string; readonly op: string; readonly family: string; next: number }[] = [];
  const collectors = new Map<string, () => readonly RecordedCase[]>();
  const collected = new Map<string, readonly RecordedCase[]>();
  const own = (await session.device()).capabilities.family;
  for (const [op, load] of Object.entries(FILES)) {
    try {
      await load();
      collectors.set(op, takeFile());
    } catch (error) {
      takeFile();
      failures.push({ op, family: '', title: 'the file cannot be loaded', message: String(error) });
    }
  }
  /** Collects the tests of each file and family, with the small cases of each table first. */
  const collect = (): void => {
    collected.clear();
    for (const [op, collector] of collectors) {
      for (const recorded of collector()) {
        const key = `${op} ${recorded.family}`;
        collected.set(key, [...(collected.get(key) ?? []), recorded]);
      }
    }
    for (const [key, list] of collected)
      collected.set(
        key,
        [...list].sort((a, b) => a.index - b.index),
      );
  };
  collect();
  const unavailable = new Set<string>();
  for (const family of FAMILIES) await testDevice({ family }).catch(() => unavailable.add(family));
  for (const [key, list] of collected) {
    const [op, family] = key.split(' ') as [string, string];
    if (unavailable.has(family)) continue;
    queues.push({ key, op, family, next: 0 });
    rows.set(key, {
      op,
      family: family || '-',
      cases: 0,
      passed: 0,
      skipped: 0,
      failed: 0,
      comparisons: 0,
      worst: 0,
      worstError: 0,
      worstBound: 0,
      worstCase: '',
      milliseconds: 0,
      notRun: list.length,
    });
  }
  const results = (complete: boolean): TestResults => {
    const table = [...rows.values()];
    const run = table.reduce((sum, { cases }) => sum + cases, 0);
    return { table, failures, run, total: table.reduce((sum, row) => sum + row.notRun, run), complete };
  };

  // The device's own family, which the product uses, gets the first 60 % of the time.
  const budget = step.left();
  const isOwn = (family: string) => family === own || family === '';
  const quick = queues.filter(({ op }) => !SLOW.includes(op));
  const passes = [quick.filter(({ family }) => isOwn(family)), quick, queues];
  let recollect = false;
  let kept = performance.now();
  for (const [phase, active] of passes.entries()) {
    const late = () => step.over() || (phase === 0 && step.left() < 0.4 * budget);
    for (let any = true; any && !late(); ) {
      any = false;
      for (const queue of active) {
        if (late()) break;
        const recorded = collected.get(queue.key)![queue.next];
        if (!recorded) continue;
        any = true;
        queue.next++;
        const row = rows.get(queue.key)!;
        const start = performance.now();
        const { outcome, comparisons, message = '' } = await runOne(session, recorded);
        row.milliseconds += performance.now() - start;
        row.cases++;
        row.notRun--;
        row[outcome]++;
        row.comparisons += comparisons.length;
        for (const { error, bound } of comparisons)
          if (bound > 0 && error / bound > row.worst)
            Object.assign(row, {
              worst: error / bound,
              worstError: error,
              worstBound: bound,
              worstCase: recorded.title,
            });
        if (outcome === 'failed') {
          if (failures.length < 100)
            failures.push({
              op: queue.op,
              family: row.family,
              title: `${recorded.group} > ${recorded.title}`,
              message: message.slice(0, 400),
            });
          // All later tests would fail on a lost or hung device, so they are collected again with new devices.
          recollect = /lost|destroyed|not done in/i.test(message);
        }
        if (recollect) {
          recollect = false;
          await closeTestDevices();
          collect();
        }
        if (performance.now() - kept > 5000) {
          kept = performance.now();
          step.keep(results(false));
        }
      }
    }
  }
  await closeTestDevices();
  const done = results([...rows.values()].every(({ notRun }) => notRun === 0));
  step.say(`${done.run} of ${done.total} cases run, ${failures.length} failed`);
  return done;
}
